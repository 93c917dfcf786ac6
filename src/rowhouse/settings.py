"""Every setting of the program, typed, read once from the environment; an odd value stops the start by name."""

from __future__ import annotations

import secrets
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


class Settings(BaseSettings):
    """Settings, each from the environment variable ROWHOUSE_<NAME>, DATABASE_URL without the prefix."""

    model_config = SettingsConfigDict(env_prefix="ROWHOUSE_", extra="ignore", frozen=True)

    database_url: Annotated[
        str | None,
        Field(
            alias="DATABASE_URL",
            description="URL of the migration role (postgresql://…). Unset: an embedded PostgreSQL is started.",
        ),
    ] = None
    pooler_url: Annotated[
        str | None,
        Field(
            description="URL (postgresql://host:port/database) of a pooler in transaction mode; DATABASE_URL stays direct. "
            "Its user and password are not read: the roles' own are used."
        ),
    ] = None
    replica_url: Annotated[
        str | None, Field(description="URL of a streaming replica, for reads whose caller accepts an older answer.")
    ] = None
    data_dir: Annotated[Path, Field(description="Where the embedded server and the generated secret live.")] = Path(".rowhouse")
    secret_key: Annotated[
        SecretStr | None, Field(description="Signs cursors, hashes tokens, derives role passwords. Required with DATABASE_URL.")
    ] = None
    role_prefix: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,30}$", description="Prefix of the four database roles.")] = (
        "rowhouse"
    )
    pool_size: Annotated[int, Field(ge=1, le=200, description="Connections of the application role per process.")] = 8
    host: Annotated[str, Field(description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535, description="Port to listen on.")] = 8300
    base_domains: Annotated[
        tuple[str, ...], NoDecode, Field(description="Domains below which each workspace has its label; comma-separated.")
    ] = ("localhost",)
    trusted_proxies: Annotated[
        tuple[IPv4Network | IPv6Network, ...],
        NoDecode,
        Field(description="Networks whose X-Forwarded-Host is believed; comma-separated."),
    ] = ()
    metrics_networks: Annotated[
        tuple[IPv4Network | IPv6Network, ...], NoDecode, Field(description="Networks that may read /metrics; comma-separated.")
    ] = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))
    default_tenant: Annotated[
        str | None, Field(description="Slug of the only workspace in declared single-tenant mode; unset otherwise.")
    ] = None
    max_body_bytes: Annotated[int, Field(ge=1024, description="Largest request body.")] = 2 * 1024 * 1024
    tenant_requests_per_minute: Annotated[int, Field(ge=0, description="Requests of one workspace in a minute; 0: no limit.")] = (
        60_000
    )
    caller_requests_per_minute: Annotated[
        int, Field(ge=0, description="Requests of one key or session in a minute; 0: no limit.")
    ] = 12_000
    tenant_share_pct: Annotated[
        int, Field(ge=1, le=100, description="Most of a process's running requests one workspace may hold, in percent.")
    ] = 50
    web_processes: Annotated[
        int, Field(ge=1, le=64, description="Web processes of `serve` and `up`; limits per minute are divided by it.")
    ] = 1
    statement_timeout_s: Annotated[
        int, Field(ge=1, le=3600, description="Longest database statement of a request or job; set by `migrate`.")
    ] = 30
    session_hours: Annotated[int, Field(ge=1, le=24 * 90, description="Life of a log-in without use.")] = 24 * 14
    log_level: Annotated[Literal["debug", "info", "warning", "error"], Field(description="Least severe log line written.")] = (
        "info"
    )
    log_format: Annotated[Literal["json", "console"], Field(description="Shape of log lines.")] = "json"

    @field_validator("base_domains", mode="before")
    @classmethod
    def _domains(cls, value: object) -> object:
        return tuple(part.strip().lower() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("trusted_proxies", "metrics_networks", mode="before")
    @classmethod
    def _networks(cls, value: object) -> object:
        return tuple(ip_network(part.strip()) for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @property
    def embedded(self) -> bool:
        """Return whether the program runs its own PostgreSQL."""
        return self.database_url is None

    @cached_property
    def secret(self) -> bytes:
        """Return the secret, at least 32 bytes; for the embedded server it is made once and kept in the data directory.

        Raises ValueError when DATABASE_URL is set without ROWHOUSE_SECRET_KEY, or the key is short.
        """
        if self.secret_key is not None:
            value = self.secret_key.get_secret_value().encode()
            if len(value) < 32:
                raise ValueError("ROWHOUSE_SECRET_KEY must be at least 32 characters; make one with: openssl rand -hex 32")
            return value
        if not self.embedded:
            raise ValueError("DATABASE_URL is set, so ROWHOUSE_SECRET_KEY must be too; make one with: openssl rand -hex 32")
        return _kept_secret(self.data_dir / "secret")


def _kept_secret(path: Path) -> bytes:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".secret.{secrets.token_hex(4)}")
        draft.touch(mode=0o600)
        draft.write_text(secrets.token_hex(32))
        try:
            # A link fails when another process was first, so both end with the same secret.
            path.hardlink_to(draft)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_text().strip().encode()
