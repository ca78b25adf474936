-- Writes a dead letter: the stored fields as they are, then ours.
--
-- Without its `attempt`: that counts starts, which `dead.attempts` now says, and a message that is
-- sent back begins anew. One that counts nothing stays, because it is hostile where it stands twice
-- and all there is where it stands alone.
--
-- More than 1,000 fields do not fit Lua's stack; they are stored in the one field `dead.packed`
-- behind all others, each string behind its length (32 bits, big-endian). Every other dead letter
-- ends with `dead.at`, so no publisher can write one that is taken for packed.
local function set_aside(dead, stored, reason, detail, attempts, queue)
  local fields, counts = {}, 0
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
  fields[n + 1], fields[n + 2] = 'dead.reason', reason
  fields[n + 3], fields[n + 4] = 'dead.detail', detail
  fields[n + 5], fields[n + 6] = 'dead.attempts', attempts
  fields[n + 7], fields[n + 8] = 'dead.queue', queue
  fields[n + 9], fields[n + 10] = 'dead.at', at
  if packed then
    fields[n + 11], fields[n + 12] = 'dead.packed', table.concat(packed)
  end
  redis.call('XADD', dead, '*', unpack(fields))
end

