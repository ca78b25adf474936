-- How long a session is kept: for ever, but a day where it was cleared and is not set aside, for a
-- message that is delivered again.
local function keep_session(key)
  if redis.call('HEXISTS', key, 'now') == 1 or redis.call('HEXISTS', key, 'aside') == 1 then
    redis.call('PERSIST', key)
  elseif redis.call('HEXISTS', key, 'before') == 1 then
    redis.call('PEXPIRE', key, 86400000)
  else
    redis.call('DEL', key)
  end
end

-- Writes the state of a session: what there was before stays for another try of the same message.
--
-- key      a hash: `now`, `before`, `message`, `aside`
-- message  whose write it is; empty where it has no id, so that no other is the same
-- value    the new state; nil clears it
--
-- By itself on a full server, a new state is refused as a whole and clearing one passes.
local function write_state(key, message, value)
  local again = message ~= '' and redis.call('HGET', key, 'message') == message
  local now = redis.call('HGET', key, 'now')
  if value then
    redis.call('HSET', key, 'now', value)
  else
    redis.call('HDEL', key, 'now')
  end
  if not again then
    redis.call('HSET', key, 'message', message)
    if now then
      redis.call('HSET', key, 'before', now)
    else
      redis.call('HDEL', key, 'before')
    end
  end
  keep_session(key)
end

