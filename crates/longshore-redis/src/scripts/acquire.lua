-- Takes a claim that nobody has.
--
-- KEYS[1]  the lease
-- KEYS[2]  the fencing token, where there is one
-- ARGV[1]  who takes it
-- ARGV[2]  ms it lasts
-- returns  the token, 0 where there is none, -1 if somebody else has the claim
--
-- The token is never below the time in ms: one that was lost with the last writes of a server that
-- died is not given out twice.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  return -1
end
-- A first write that needs no memory lets the rest pass on a full server.
redis.call('PEXPIRE', KEYS[1], ARGV[2])
if holder then
  -- Ours: the answer to an earlier call was lost.
  return KEYS[2] and tonumber(redis.call('GET', KEYS[2])) or 0
end
local token = 0
if KEYS[2] then
  local time = redis.call('TIME')
  local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
  local last = tonumber(redis.call('GET', KEYS[2])) or 0
  -- We gave out none that large, and Lua would round it.
  if last >= 2 ^ 53 then
    last = 0
  end
  token = math.max(now, last + 1)
  redis.call('SET', KEYS[2], string.format('%d', token))
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return token
