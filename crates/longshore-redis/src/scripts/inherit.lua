-- Takes over what an earlier owner of the partition left unsettled.
--
-- KEYS[1]  the stream
-- KEYS[2]  the lease
-- ARGV[1]  the group
-- ARGV[2]  who owns it
-- ARGV[3…] per entry three values: id, consumer to hold it, count to set
-- returns  the entries taken, in order, each {id, fields}; 0 not theirs any more
--
-- JUSTID keeps the delivery count, which here means starts of a handler.
if redis.call('GET', KEYS[2]) ~= ARGV[2] then
  return 0
end
local taken = {}
for i = 3, #ARGV, 3 do
  -- Empty where the entry was deleted while it was pending; Redis then drops it by itself.
  local claimed = redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[i + 1], 0, ARGV[i],
    'RETRYCOUNT', ARGV[i + 2], 'JUSTID')
  if #claimed == 1 then
    taken[#taken + 1] = redis.call('XRANGE', KEYS[1], ARGV[i], ARGV[i])[1]
  end
end
return taken
