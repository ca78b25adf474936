-- Replaces an entry by a copy that knows how many starts were used up, at once or later.
--
-- KEYS[1]  the stream of its lane
-- KEYS[2]  the delayed messages
-- KEYS[3]  the list that wakes the promoter
-- KEYS[4]  the mark of its id; or left out
-- ARGV[1]  the group
-- ARGV[2]  the consumer
-- ARGV[3]  the id
-- ARGV[4]  starts used up, stored as `attempt` where there were any
-- ARGV[5]  ms to wait
-- ARGV[6]  the part, as in a key: empty or `p.high:`
-- ARGV[7…] with a mark: change, owner, value, ms
-- returns  1 done, 0 somebody else's, -1 not pending or deleted, -2 too many fields
local seen = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1)[1]
if not seen then
  return -1
end
if seen[2] ~= ARGV[2] then
  return 0
end
-- A first write that needs no memory lets the rest pass on a full server.
redis.call('XACK', KEYS[1], ARGV[1], '0-0')
local entry = redis.call('XRANGE', KEYS[1], ARGV[3], ARGV[3])[1]
if not entry then
  redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
  return -1
end
local stored = entry[2]
if #stored > 2000 then
  return -2
end
local fields = {}
for i = 1, #stored, 2 do
  if stored[i] ~= 'attempt' then
    fields[#fields + 1] = stored[i]
    fields[#fields + 1] = stored[i + 1]
  end
end
if ARGV[4] ~= '0' then
  fields[#fields + 1] = 'attempt'
  fields[#fields + 1] = ARGV[4]
end
if KEYS[4] then
  change_mark(KEYS[4], ARGV[7], ARGV[8], ARGV[9], ARGV[10], hold_of(stored))
end
local wait = tonumber(ARGV[5])
local member
if wait == 0 then
  redis.call('XADD', KEYS[1], '*', unpack(fields))
else
  -- Version, a name that repeats for the same entry only, part, fields: each behind its length.
  local packed = {}
  for i, value in ipairs({ '1', 'r' .. ARGV[3], ARGV[6], unpack(fields) }) do
    packed[i] = struct.pack('>I4', #value) .. value
  end
  member = table.concat(packed)
  local time = redis.call('TIME')
  local now = tonumber(time[1]) * 1000 + math.ceil(tonumber(time[2]) / 1000)
  redis.call('ZADD', KEYS[2], string.format('%d', now + wait), member)
end
redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
redis.call('XDEL', KEYS[1], ARGV[3])
if member and redis.call('ZRANGE', KEYS[2], 0, 0)[1] == member and redis.pcall('LLEN', KEYS[3]) == 0 then
  redis.pcall('LPUSH', KEYS[3], '1')
end
return 1
