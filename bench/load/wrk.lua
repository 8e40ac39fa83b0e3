-- wrk's requests and report; started by wrk.rs.
--
-- BENCH_ADDRESSES: "host:port ...", assigned to wrk's threads in turn.
-- BENCH_REQUESTS: a file of complete requests, each after a line with its length. Each thread sends them in
-- turn, beginning at a different place. Without it wrk repeats the request of its command line, and does not
-- run Lua for each request.

local addresses, threads = {}, 0
for address in string.gmatch(os.getenv("BENCH_ADDRESSES"), "%S+") do
  addresses[#addresses + 1] = address
end

function setup(thread)
  local host, port = string.match(addresses[threads % #addresses + 1], "^(.*):(%d+)$")
  thread.addr = wrk.lookup(host, port)[1]
  thread:set("place", threads)
  threads = threads + 1
end

local path = os.getenv("BENCH_REQUESTS")
if path then
  local requests, next = {}, 0

  function init()
    local file = assert(io.open(path, "rb"))
    while true do
      local length = file:read("*n")
      if not length then
        break
      end
      file:read(1)
      requests[#requests + 1] = assert(file:read(length))
    end
    file:close()
    next = math.floor(#requests / 4 * place)
  end

  function request()
    next = next % #requests + 1
    return requests[next]
  end
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format("\nbench %d %d %d %d %d %d %d %d %d %d\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9),
    errors.connect, errors.read, errors.write, errors.status, errors.timeout))
end
