-- Gives a claim back.
--
-- KEYS[1]  the lease
-- KEYS[2]  the stream that was consumed under it, where there is one
-- ARGV[1]  who has it
-- ARGV[2]  the group
-- returns  1 free, 0 not theirs any more
--
-- Whoever consumed it has left, so a name that holds nothing goes.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
if KEYS[2] and redis.call('EXISTS', KEYS[2]) == 1 then
  local consumers = redis.pcall('XINFO', 'CONSUMERS', KEYS[2], ARGV[2])
  for _, consumer in ipairs(consumers.err and {} or consumers) do
    local seen = {}
    for i = 1, #consumer, 2 do
      seen[consumer[i]] = consumer[i + 1]
    end
    if seen.pending == 0 then
      redis.call('XGROUP', 'DELCONSUMER', KEYS[2], ARGV[2], seen.name)
    end
  end
end
redis.call('DEL', KEYS[1])
return 1
