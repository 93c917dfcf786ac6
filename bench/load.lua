-- Load for wrk: requests from a file, in random order, with or without a pause after each answer.
-- Arguments: the file, the mean pause in milliseconds (0: none), the seed.
-- A line of the file: method, path, host, authorization, body, separated by tabs. @N stands for a number used once.

local ready, patterns, pause = {}, {}, 0
local serial = 0

local function split(line)
  local parts = {}
  for part in (line .. "\t"):gmatch("(.-)\t") do parts[#parts + 1] = part end
  return parts
end

local function build(parts, number)
  local headers = { Host = parts[3], Authorization = parts[4] }
  local body = parts[5] ~= "" and parts[5]:gsub("@N", number) or nil
  if body then headers["Content-Type"] = "application/json" end
  return wrk.format(parts[1], (parts[2]:gsub("@N", number)), headers, body)
end

function init(args)
  pause = tonumber(args[2])
  math.randomseed(tonumber(args[3]))
  serial = tonumber(args[3]) * 1000000
  for line in io.lines(args[1]) do
    local parts = split(line)
    if line:find("@N", 1, true) then
      patterns[#patterns + 1] = parts
    else
      ready[#ready + 1] = build(parts, "")
    end
  end
  if pause > 0 then
    -- Pauses of exponential length make arrivals that come at random, as from many callers.
    delay = function() return math.floor(-math.log(1 - math.random()) * pause + 0.5) end
  end
end

function request()
  local chosen = math.random(#ready + #patterns)
  if chosen <= #ready then return ready[chosen] end
  serial = serial + 1
  return build(patterns[chosen - #ready], tostring(serial))
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\nRESULT {"requests": %d, "duration_us": %d, "bytes": %d, "refused": %d, "broken": %d, "p50": %d, "p90": %d, "p95": %d, "p99": %d, "max": %d}\n',
    summary.requests, summary.duration, summary.bytes, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(90), latency:percentile(95), latency:percentile(99), latency.max))
end
