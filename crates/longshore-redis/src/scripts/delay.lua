-- Stores a message until its time.
--
-- KEYS[1]  the delayed messages
-- KEYS[2]  the list that wakes the promoter
-- KEYS[3]  the stream it will go to
-- ARGV[1]  ms to wait
-- ARGV[2]  the packed message
-- returns  1 stored, 0 no such queue
if redis.call('EXISTS', KEYS[3]) == 0 then
  return 0
end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.ceil(tonumber(time[2]) / 1000)
-- The first write, so that a full server refuses it.
redis.call('ZADD', KEYS[1], string.format('%d', now + tonumber(ARGV[1])), ARGV[2])
if redis.call('ZRANGE', KEYS[1], 0, 0)[1] == ARGV[2] and redis.pcall('LLEN', KEYS[2]) == 0 then
  redis.pcall('LPUSH', KEYS[2], '1')
end
return 1
