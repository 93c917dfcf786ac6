"""What a statement breaks of the rules for Citus (`rowhouse.citus.RULES`), read from its parse tree."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pglast import ast, enums, parse_sql

from rowhouse.citus import Fault

CONSTANT = "$"
_DDL = enums.ConstrType


@dataclass(frozen=True)
class Tables:
    """Our tables by what becomes of them on Citus."""

    tenant: frozenset[str]
    reference: frozenset[str]
    local: frozenset[str]


@dataclass
class Level:
    """One SELECT, UPDATE or DELETE, without what is nested in it. outer: names of enclosing levels that are proven."""

    outer: frozenset[str]
    tenants: dict[str, str] = field(default_factory=dict)
    references: set[str] = field(default_factory=set)
    locals: set[str] = field(default_factory=set)
    links: list[tuple[str, str]] = field(default_factory=list)
    # Sub-queries and CTEs are checked by themselves, so what they return is of the tenant.
    nested: set[str] = field(default_factory=set)

    def proven(self) -> frozenset[str]:
        """Return the names whose tenant is named, directly or through a chain of joins."""
        known = {CONSTANT, *self.outer, *self.nested}
        while True:
            more = {name for link in self.links for name in link if set(link) & known} - known
            if not more:
                return frozenset(known)
            known |= more

    def joined(self) -> bool:
        """Return whether all tenant tables are joined on the tenant with each other."""
        proven = self.proven()
        rest = [name for name in self.tenants if name not in proven]
        if not rest or (len(self.tenants) == 1 and not self.outer - {CONSTANT}):
            return True
        known = {rest[0]}
        while more := {name for link in self.links for name in link if set(link) & known} - known:
            known |= more
        return len(rest) == len(self.tenants) and set(rest) <= known


def faults(sql: str, tables: Tables, *, across: bool = False) -> list[Fault]:
    """Return the rules one message to the server breaks. across: it is of a role that works across tenants."""
    nodes = [raw.stmt for raw in parse_sql(_numbered(sql))]
    found: set[str] = {"not_alone"} if len(nodes) > 1 else set()
    for node in nodes:
        found |= set(_of_statement(node, tables, across))
    return [Fault(rule, " ".join(sql.split())[:300], "") for rule in sorted(found)]


def has_subselect(expression: str) -> bool:
    """Return whether an expression, such as a policy's, contains a sub-select."""
    return any(isinstance(node, ast.SubLink) for node in walk(parse_sql(f"SELECT {expression}")))


def walk(node: Any) -> Iterator[Any]:
    """Yield a node and everything below it."""
    if isinstance(node, tuple | list):
        for each in node:
            yield from walk(each)
    elif isinstance(node, ast.Node):
        yield node
        for name in node:
            yield from walk(getattr(node, name))


def _numbered(sql: str) -> str:
    """Write the driver's placeholders as the server's."""
    return re.sub(r"%\(\w+\)s|%s", "$1", sql).replace("%%", "%")


def _of_statement(node: Any, tables: Tables, across: bool) -> Iterator[str]:
    simple = {ast.MergeStmt: "merge", ast.CopyStmt: "copy", ast.CreateTrigStmt: "trigger"}
    if type(node) in simple:
        yield simple[type(node)]
    if isinstance(node, ast.VariableSetStmt) and not node.is_local:
        yield "session_set"
    if isinstance(node, ast.CreatePolicyStmt):
        if not node.permissive:
            yield "restrictive_policy"
        if any(isinstance(below, ast.SubLink) for below in walk((node.qual, node.with_check))):
            yield "policy_subselect"
    if any(isinstance(below, ast.FuncCall) and below.funcname[-1].sval == "set_config" for below in walk(node)):
        yield "set_config"
    yield from _of_definition(node, tables)
    yield from _of_query(node, tables, across, frozenset(), frozenset())


def _of_query(node: Any, tables: Tables, across: bool, outer: frozenset[str], ctes: frozenset[str]) -> Iterator[str]:
    if node is None or not isinstance(node, ast.SelectStmt | ast.UpdateStmt | ast.DeleteStmt | ast.InsertStmt):
        return
    clause = node.withClause
    if clause is not None:
        names = frozenset(cte.ctename for cte in clause.ctes)
        for cte in clause.ctes:
            # A recursive part has to name the tenant whoever runs it.
            inner = set(_of_query(cte.ctequery, tables, across and not clause.recursive, outer, ctes | names))
            yield from ({"recursion_without_tenant" if clause.recursive and rule == "tenant_filter" else rule for rule in inner})
        ctes |= names
    if isinstance(node, ast.SelectStmt) and node.op != enums.SetOperation.SETOP_NONE:
        yield from _of_query(node.larg, tables, across, outer, ctes)
        yield from _of_query(node.rarg, tables, across, outer, ctes)
        return
    level, below = _level_of(node, tables, outer, ctes)
    yield from _of_level(node, level, tables, across)
    if level.references and not level.tenants and _is_asked_below(node, tables):
        yield "global_outer"
    # Any name of this level is in reach of what is nested in it, but only a proven one names the tenant.
    reach = level.proven() | (frozenset(level.tenants) if across else frozenset())
    for query in below:
        yield from _of_query(query, tables, across, reach, ctes)


def _of_level(node: Any, level: Level, tables: Tables, across: bool) -> Iterator[str]:
    proven = level.proven()
    unproven = [name for name in level.tenants if name not in proven]
    if unproven and not across:
        yield "tenant_filter"
    if across and not level.joined():
        yield "tenant_join"
    if level.tenants and level.locals:
        yield "local_join"
    if unproven and isinstance(node, ast.SelectStmt) and node.lockingClause:
        yield "lock_without_tenant"
    if isinstance(node, ast.InsertStmt):
        yield from _of_insert(node, tables)
    conflict = getattr(node, "onConflictClause", None)
    for target in (*(node.targetList or ()), *(conflict.targetList or () if conflict else ())) if _writes(node) else ():
        if target.name == "tenant_id" and _relation(node) in tables.tenant:
            yield "moved_tenant"


def _is_asked_below(node: Any, tables: Tables) -> bool:
    links = [below for below in walk(node) if isinstance(below, ast.SubLink)]
    return any(isinstance(below, ast.RangeVar) and below.relname in tables.tenant for below in walk(links))


def _writes(node: Any) -> bool:
    return isinstance(node, ast.UpdateStmt)


def _relation(node: Any) -> str:
    return str(node.relation.relname)


def _of_insert(node: ast.InsertStmt, tables: Tables) -> Iterator[str]:
    if _relation(node) not in tables.tenant:
        return
    source = node.selectStmt
    # SQLAlchemy numbers the rows of a long INSERT by a SELECT from VALUES, which needs no table.
    if source is not None and source.valuesLists is None and any(isinstance(n, ast.RangeVar) for n in walk(source.fromClause)):
        yield "insert_select"
    if source is not None and source.valuesLists is None and source.fromClause is None:
        yield "insert_select"
    if "tenant_id" not in {column.name for column in node.cols or ()}:
        yield "tenant_filter"
    conflict = node.onConflictClause
    if conflict is not None and any(target.name == "tenant_id" for target in conflict.targetList or ()):
        yield "moved_tenant"


def _level_of(node: Any, tables: Tables, outer: frozenset[str], ctes: frozenset[str]) -> tuple[Level, list[Any]]:
    """Return one level, and the queries nested in it."""
    level, queries, conditions = Level(outer), [], []
    sources = [*(getattr(node, "fromClause", None) or ()), *(getattr(node, "usingClause", None) or ())]
    if isinstance(node, ast.UpdateStmt | ast.DeleteStmt):
        sources.append(node.relation)
    while sources:
        source = sources.pop()
        if isinstance(source, ast.JoinExpr):
            sources += [source.larg, source.rarg]
            conditions.append(source.quals)
        elif isinstance(source, ast.RangeVar):
            _add_table(level, source, tables, ctes)
        elif isinstance(source, ast.RangeSubselect):
            queries.append(source.subquery)
            level.nested.add(source.alias.aliasname if source.alias else "")
    conditions.append(getattr(node, "whereClause", None))
    for condition in conditions:
        level.links += _links(condition, level)
    queries += _nested(node)
    return level, queries


def _add_table(level: Level, source: ast.RangeVar, tables: Tables, ctes: frozenset[str]) -> None:
    name = source.alias.aliasname if source.alias else source.relname
    if source.relname in ctes:
        level.nested.add(name)
    elif source.relname in tables.tenant:
        level.tenants[name] = source.relname
    elif source.relname in tables.reference:
        level.references.add(name)
    elif source.relname in tables.local:
        level.locals.add(name)


def _nested(node: Any) -> list[Any]:
    """Return the sub-queries in the expressions of a level, not those in their own turn nested in them."""
    found: list[Any] = []
    waiting = [getattr(node, name) for name in node if name not in ("withClause", "larg", "rarg")]
    while waiting:
        below = waiting.pop()
        if isinstance(below, tuple | list):
            waiting += below
        elif isinstance(below, ast.SubLink):
            found.append(below.subselect)
            waiting.append(below.testexpr)
        elif isinstance(below, ast.SelectStmt):
            if isinstance(node, ast.InsertStmt):
                found.append(below)
        elif isinstance(below, ast.Node):
            waiting += [getattr(below, name) for name in below]
    return found


def _links(condition: Any, level: Level) -> Iterator[tuple[str, str]]:
    """Yield what AND-ed equalities say of tenants: two names, or a name and CONSTANT."""
    if isinstance(condition, ast.BoolExpr) and condition.boolop == enums.BoolExprType.AND_EXPR:
        for part in condition.args:
            yield from _links(part, level)
    elif isinstance(condition, ast.A_Const) and isinstance(condition.val, ast.Boolean) and not condition.val.boolval:
        # WHERE false reads no row of anybody, and asks no shard.
        yield from ((CONSTANT, name) for name in level.tenants)
    elif isinstance(condition, ast.A_Expr) and condition.kind == enums.A_Expr_Kind.AEXPR_OP and condition.name[0].sval == "=":
        left, right = _side(condition.lexpr, level), _side(condition.rexpr, level)
        if left is not None and right is not None:
            yield left, right


def _side(expression: Any, level: Level) -> str | None:
    while isinstance(expression, ast.TypeCast):
        expression = expression.arg
    if isinstance(expression, ast.ParamRef | ast.A_Const):
        return CONSTANT
    if not isinstance(expression, ast.ColumnRef) or getattr(expression.fields[-1], "sval", "") != "tenant_id":
        return None
    if len(expression.fields) > 1:
        return str(expression.fields[-2].sval)
    return next(iter(level.tenants)) if len(level.tenants) == 1 else None


def _of_definition(node: Any, tables: Tables) -> Iterator[str]:
    is_unique = isinstance(node, ast.IndexStmt) and node.unique and node.relation.relname in tables.tenant
    if is_unique and "tenant_id" not in {column.name for column in node.indexParams}:
        yield "tenant_key"
    if not isinstance(node, ast.CreateStmt | ast.AlterTableStmt):
        return
    name = node.relation.relname
    for constraint in (below for below in walk(node) if isinstance(below, ast.Constraint)):
        yield from _of_constraint(constraint, name, tables)


def _of_constraint(constraint: ast.Constraint, table: str, tables: Tables) -> Iterator[str]:
    if constraint.contype == _DDL.CONSTR_FOREIGN:
        yield from _of_foreign_key(constraint, table, tables)
    if table not in tables.tenant:
        return
    if constraint.contype in (_DDL.CONSTR_PRIMARY, _DDL.CONSTR_UNIQUE) and "tenant_id" not in _texts(constraint.keys):
        yield "tenant_key"
    if constraint.contype == _DDL.CONSTR_EXCLUSION:
        excluded = {element[0].name for element in constraint.exclusions}
        if "tenant_id" not in excluded:
            yield "tenant_key"


def _of_foreign_key(constraint: ast.Constraint, table: str, tables: Tables) -> Iterator[str]:
    target, actions = constraint.pktable.relname, {constraint.fk_del_action, constraint.fk_upd_action}
    if table not in tables.tenant:
        if target in tables.tenant:
            yield "global_to_tenant"
        return
    if actions & {"n", "d"}:
        yield "set_null"
    pairs = set(zip(_texts(constraint.fk_attrs), _texts(constraint.pk_attrs), strict=False))
    if target in tables.tenant and ("tenant_id", "tenant_id") not in pairs:
        yield "foreign_key"


def _texts(names: Iterable[Any] | None) -> list[str]:
    return [name.sval for name in names or ()]
