-- wrk's side of compare.py; arguments: METHOD PATH BODY_BYTES [COOKIES...]. One request is built per visitor, then they take turns.
local requests, turn = {}, 0

function init(arguments)
  local method, path, body_bytes = arguments[1], arguments[2], tonumber(arguments[3])
  local body = body_bytes > 0 and string.rep("x", body_bytes) or nil
  local function add(cookies)
    -- about what a browser sends
    requests[#requests + 1] = wrk.format(method, path, {
      ["Host"] = "bench.example",
      ["User-Agent"] = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
      ["Accept"] = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
      ["Accept-Language"] = "en-GB,en;q=0.7,de;q=0.3",
      ["Cookie"] = cookies,
    }, body)
  end
  for position = 4, #arguments do add("theme=dark; " .. arguments[position]) end
  if #requests == 0 then add(nil) end
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

function done(summary)
  local errors = summary.errors
  io.write(string.format('\nRESULT {"requests": %d, "microseconds": %d, "failed": %d}\n', summary.requests, summary.duration,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
