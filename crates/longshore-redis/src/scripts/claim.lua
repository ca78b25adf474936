-- Moves pending entries to a consumer, each only if it is still as it was seen.
--
-- KEYS[1]  the stream
-- ARGV[1]  the group
-- ARGV[2]  the consumer that takes over
-- ARGV[3…] per entry five values: id, owner seen, count seen, least idle time in ms, count to set
-- returns  the entries taken, each {id, fields}
--
-- JUSTID keeps the delivery count, which here means starts of a handler, and sets the idle time
-- to zero.
local taken = {}
for i = 3, #ARGV, 5 do
  local id, owner, count, idle, set = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
  local seen = redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1)[1]
  if seen and seen[2] == owner and seen[3] >= tonumber(idle) and seen[4] == tonumber(count) then
    -- Empty where the entry was deleted while it was pending; Redis then drops it by itself.
    local claimed = redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, id, 'RETRYCOUNT', set, 'JUSTID')
    if #claimed == 1 then
      local entry = redis.call('XRANGE', KEYS[1], id, id)[1]
      if entry then
        taken[#taken + 1] = entry
      end
    end
  end
end
return taken
