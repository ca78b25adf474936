-- Sets a session aside or brings it back.
--
-- KEYS[1]  the session
-- KEYS[2]  the fencing token of its scope
-- ARGV[1]  1 to set it aside, 0 to bring it back
-- ARGV[2]  the writer's token; empty for an operator
-- returns  1 done, 0 a larger token was granted
if ARGV[2] ~= '' and is_smaller(ARGV[2], redis.call('GET', KEYS[2]) or '0') then
  return 0
end
if ARGV[1] == '1' then
  redis.call('HSET', KEYS[1], 'aside', '1')
else
  redis.call('HDEL', KEYS[1], 'aside')
end
keep_session(KEYS[1])
return 1
