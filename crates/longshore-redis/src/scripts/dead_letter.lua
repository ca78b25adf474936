-- Sets an entry aside: the stored fields as they are, then ours.
--
-- Without its `attempt`: that counts starts, which `dead.attempts` now says, and a message that is
-- sent back begins anew. One that counts nothing stays, because it is hostile where it stands twice
-- and all there is where it stands alone.
--
-- KEYS[1]  the stream
-- KEYS[2]  the dead letters
-- KEYS[3]  the mark of its id; or left out
-- ARGV[1]  the group
-- ARGV[2]  the consumer
-- ARGV[3]  the id
-- ARGV[4]  reason
-- ARGV[5]  detail
-- ARGV[6]  attempts
-- ARGV[7]  the physical queue it comes from
-- ARGV[8…] with a mark: change, owner, value, ms
-- returns  1 done, 0 somebody else's, -1 not pending or deleted
--
-- More than 1,000 fields do not fit Lua's stack; they are stored in the one field `dead.packed`
-- behind all others, each string behind its length (32 bits, big-endian). Every other dead letter
-- ends with `dead.at`, so no publisher can write one that is taken for packed.
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
local stored, fields, counts = entry[2], {}, 0
for i = 1, #stored, 2 do
  if stored[i] == 'attempt' then
    counts = counts + 1
  end
end
for i = 1, #stored, 2 do
  if stored[i] ~= 'attempt' or counts > 1 or #stored == 2 then
    fields[#fields + 1] = stored[i]
    fields[#fields + 1] = stored[i + 1]
  end
end
local packed
if #fields > 2000 then
  packed = {}
  for i, value in ipairs(fields) do
    packed[i] = struct.pack('>I4', #value) .. value
  end
  fields = {}
end
local time = redis.call('TIME')
local at = string.format('%d', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000))
local n = #fields
fields[n + 1], fields[n + 2] = 'dead.reason', ARGV[4]
fields[n + 3], fields[n + 4] = 'dead.detail', ARGV[5]
fields[n + 5], fields[n + 6] = 'dead.attempts', ARGV[6]
fields[n + 7], fields[n + 8] = 'dead.queue', ARGV[7]
fields[n + 9], fields[n + 10] = 'dead.at', at
if packed then
  fields[n + 11], fields[n + 12] = 'dead.packed', table.concat(packed)
end
redis.call('XADD', KEYS[2], '*', unpack(fields))
if KEYS[3] then
  change_mark(KEYS[3], ARGV[8], ARGV[9], ARGV[10], ARGV[11], hold_of(stored))
end
redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
redis.call('XDEL', KEYS[1], ARGV[3])
return 1
