-- Read budgets, count what has lapsed of them as spent, and correct what is spent. A correction counts only when nobody
-- else has made one since the budget was read: replicas that find the same difference correct it once.
--
-- KEYS      two a budget, as reserve.lua reads them, all under one {organization} tag
-- ARGV[1]   JSON: [nano-USD to add, times it had been corrected when it was read, what of it is held in vain: "event
--           amount"...] of each, in the order of KEYS; adding 0 only reads. What is held in vain is let go, and is a
--           part of what is to be taken away
-- returns   {spent, reserved, times corrected} of each, one after the other; -1 three times for a missing one
local corrections = cjson.decode(ARGV[1])
local now_ms = clock_ms()
local answer = {}
for i = 1, #corrections do
  local key, holds = KEYS[2 * i - 1], KEYS[2 * i]
  local delta, times, vain = unpack(corrections[i])
  local stored = redis.call('HMGET', key, 'spent', 'reserved', 'mended')
  local spent, reserved, mended = -1, -1, -1
  if stored[1] then
    mended = tonumber(stored[3] or 0)
    spent, reserved = lapse(key, holds, tonumber(stored[1]), tonumber(stored[2]), now_ms)
    if delta ~= 0 and mended == times then
      local freed = 0
      for j = 1, #vain do
        if redis.call('ZREM', holds, vain[j]) == 1 then
          freed = freed + math.min(tonumber(string.match(vain[j], '%S+$')), reserved - freed)
        end
      end
      delta = math.max(delta + freed, -spent)
      if delta ~= 0 or freed > 0 then
        spent, reserved, mended = spent + delta, reserved - freed, mended + 1
        write(key, spent, reserved)
        redis.call('HSET', key, 'mended', mended)
      end
    end
  end
  answer[3 * i - 2], answer[3 * i - 1], answer[3 * i] = spent, reserved, mended
end
return answer
