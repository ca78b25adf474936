-- Sends a dead letter back to the lane it came from, as first published but marked as redriven.
--
-- KEYS[1]  the dead letters
-- KEYS[2]  the stream of the normal lane
-- KEYS[3]  what the queue is made of
-- ARGV[1]  the id
-- ARGV[2]  the queue
-- ARGV[3]  what its keys begin with; the streams of its lanes are in the same slot
-- returns  1 done, 0 no such dead letter, -1 no such queue, -2 too many fields: see `dead.packed`
local entry = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1]
if not entry then
  return 0
end
local stored = entry[2]
-- Ours are the last five pairs, by place: a publisher may have used the same names.
local last, stream = #stored, KEYS[2]
if last > 10 and stored[last - 9] == 'dead.reason' and stored[last - 1] == 'dead.at' then
  local lane = ARGV[2] .. '.p.'
  local from = stored[last - 2]
  if string.sub(from, 1, #lane) == lane then
    local part = string.sub(from, #ARGV[2] + 2)
    if redis.call('HEXISTS', KEYS[3], part) == 1 then
      stream = ARGV[3] .. part .. ':stream'
    end
  end
  last = last - 10
elseif last > 2000 or (last == 12 and stored[1] == 'dead.reason' and stored[11] == 'dead.packed') then
  return -2
end
local fields = {}
for i = 1, last, 2 do
  if stored[i] ~= 'redriven' then
    fields[#fields + 1] = stored[i]
    fields[#fields + 1] = stored[i + 1]
  end
end
fields[#fields + 1], fields[#fields + 2] = 'redriven', '1'
if not redis.call('XADD', stream, 'NOMKSTREAM', '*', unpack(fields)) then
  return -1
end
redis.call('XDEL', KEYS[1], ARGV[1])
return 1
