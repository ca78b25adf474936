-- Writes the state of a session: what there was before stays for another try of the same message.
--
-- key      a hash: `now`, `before`, `message`, `aside`
-- message  whose write it is
-- value    the new state; nil clears it
local function write_state(key, message, value)
  if redis.call('HGET', key, 'message') ~= message then
    local now = redis.call('HGET', key, 'now')
    if now then
      redis.call('HSET', key, 'before', now)
    else
      redis.call('HDEL', key, 'before')
    end
    redis.call('HSET', key, 'message', message)
  end
  if value then
    redis.call('HSET', key, 'now', value)
  else
    redis.call('HDEL', key, 'now')
    if redis.call('HEXISTS', key, 'before') == 0 and redis.call('HEXISTS', key, 'aside') == 0 then
      -- Nothing is left that anybody could see.
      redis.call('DEL', key)
    end
  end
end

