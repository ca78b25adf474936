-- Sends a dead letter back as first published.
--
-- KEYS[1]  the dead letters
-- KEYS[2]  the stream
-- ARGV[1]  the id
-- returns  1 done, 0 no such dead letter, -1 no such queue, -2 too many fields: see `dead.packed`
local entry = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1]
if not entry then
  return 0
end
local stored = entry[2]
-- Ours are the last five pairs, by place: a publisher may have used the same names.
local last = #stored
if last > 10 and stored[last - 9] == 'dead.reason' and stored[last - 1] == 'dead.at' then
  last = last - 10
elseif last > 2000 or (last == 12 and stored[1] == 'dead.reason' and stored[11] == 'dead.packed') then
  return -2
end
local fields = {}
for i = 1, last do
  fields[i] = stored[i]
end
if not redis.call('XADD', KEYS[2], 'NOMKSTREAM', '*', unpack(fields)) then
  return -1
end
redis.call('XDEL', KEYS[1], ARGV[1])
return 1
