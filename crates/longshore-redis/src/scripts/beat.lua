-- Says that a worker is alive, or leaves, and counts the living.
--
-- KEYS[1]  the members, each with the time at which it is given up
-- ARGV[1]  who
-- ARGV[2]  ms until it is given up; 0 leaves
-- returns  how many are alive
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
-- A first write that needs no memory lets the rest pass on a full server.
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%d', now))
if ARGV[2] == '0' then
  redis.call('ZREM', KEYS[1], ARGV[1])
else
  redis.call('ZADD', KEYS[1], string.format('%d', now + tonumber(ARGV[2])), ARGV[1])
end
return redis.call('ZCARD', KEYS[1])
