-- Raises the fencing token of a scope.
--
-- KEYS[1]  the token
-- ARGV[1]  the new one
-- returns  1 raised, 0 it was not smaller
-- A first write that needs no memory lets the rest pass on a full server.
redis.call('PERSIST', KEYS[1])
if is_smaller(redis.call('GET', KEYS[1]) or '0', ARGV[1]) then
  redis.call('SET', KEYS[1], ARGV[1])
  return 1
end
return 0
