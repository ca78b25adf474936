-- Moves messages whose time has come to the stream of their lane.
--
-- KEYS[1]  the delayed messages
-- KEYS[2]  the stream of the normal lane
-- KEYS[3]  the dead letters
-- KEYS[4]  what the queue is made of
-- ARGV[1]  how many at most
-- ARGV[2]  1: a stream may be created
-- ARGV[3]  the queue
-- ARGV[4]  what its keys begin with; the streams of its lanes are in the same slot
-- returns  {messages moved, ms until the next is due or -1, 1 if the stream is missing}
--
-- A member is version, name, part and fields, each behind its length (32 bits, big-endian). What
-- is no such thing becomes a dead letter: it must not hold back the others. Neither must a lane
-- that is gone, so its messages go to the normal one.
local function unpacked(member)
  local values, at = {}, 1
  while at <= #member do
    if at + 3 > #member or #values > 2005 then
      return nil
    end
    local length = struct.unpack('>I4', member, at)
    if at + 3 + length > #member then
      return nil
    end
    values[#values + 1] = string.sub(member, at + 4, at + 3 + length)
    at = at + 4 + length
  end
  if #values < 5 or #values > 2005 or #values % 2 == 0 or values[1] ~= '1'
    or not (values[3] == '' or string.find(values[3], '^p%.[%w._-]+:$')) then
    return nil
  end
  return values
end

local streams = { [''] = KEYS[2] }
local function stream_of(part)
  if not streams[part] then
    local stream = ARGV[4] .. part .. 'stream'
    local there = redis.call('HEXISTS', KEYS[4], string.sub(part, 1, -2)) == 1
      and (ARGV[2] == '1' or redis.call('EXISTS', stream) == 1)
    streams[part] = there and stream or KEYS[2]
  end
  return streams[part]
end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%d', now), 'LIMIT', 0, ARGV[1])
if #due > 0 then
  -- A first write that needs no memory lets the rest pass on a full server.
  redis.call('ZREM', KEYS[1], '')
end
local moved = 0
for _, member in ipairs(due) do
  local values = unpacked(member)
  if values then
    local command = { 'XADD', stream_of(values[3]) }
    if ARGV[2] ~= '1' then
      command[3] = 'NOMKSTREAM'
    end
    command[#command + 1] = '*'
    for i = 4, #values do
      command[#command + 1] = values[i]
    end
    if not redis.call(unpack(command)) then
      return { moved, 0, 1 }
    end
  else
    redis.call('XADD', KEYS[3], '*', 'body', member, 'dead.reason', 'hostile',
      'dead.detail', 'a delayed message that no client of this version has written',
      'dead.attempts', '0', 'dead.queue', ARGV[3], 'dead.at', string.format('%d', now))
  end
  redis.call('ZREM', KEYS[1], member)
  moved = moved + 1
end
local next = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
if not next[2] then
  return { moved, -1, 0 }
end
return { moved, math.max(0, tonumber(next[2]) - now), 0 }
