-- Read budgets, count what has lapsed of them as spent, and correct what is spent and what is held for requests of before
-- they were summed up. A correction counts only when nobody
-- else has made one since the budget was read: replicas that find the same difference correct it once.
--
-- KEYS      two a budget, as reserve.lua reads them, all under one {organization} tag
-- ARGV[1]   JSON: [nano-USD to add, times it had been corrected when it was read (-1: only read), what of it is held in
--           vain: "event amount"..., the most that requests of before may still hold] of each, in the order of KEYS.
--           What is held no longer is let go; what is to be added is so beside it, to both together
-- returns   {spent, reserved, times corrected, what requests of before hold} of each, one after the other; -1 four times
--           for a missing one
local corrections = cjson.decode(ARGV[1])
local now_ms = clock_ms()
local answer = {}
for i = 1, #corrections do
  local key, holds = KEYS[2 * i - 1], KEYS[2 * i]
  local delta, times, vain, most = unpack(corrections[i])
  local stored = redis.call('HMGET', key, 'spent', 'reserved', 'mended', REBUILT)
  local spent, reserved, mended, rebuilt = -1, -1, -1, -1
  if stored[1] then
    mended = tonumber(stored[3] or 0)
    spent, reserved = lapse(key, holds, tonumber(stored[1]), tonumber(stored[2]), now_ms)
    local lapse_ms = stored[4] and redis.call('ZSCORE', holds, REBUILT .. ' ' .. stored[4])
    rebuilt = lapse_ms and tonumber(stored[4]) or 0
    if mended == times then
      local freed = 0
      for j = 1, #vain do
        if redis.call('ZREM', holds, vain[j]) == 1 then
          freed = freed + math.min(tonumber(string.match(vain[j], '%S+$')), reserved - freed)
        end
      end
      if most < rebuilt then
        redis.call('ZREM', holds, REBUILT .. ' ' .. stored[4])
        freed = freed + math.min(rebuilt - most, reserved - freed)
        rebuilt = most
        local left = string.format('%.0f', most)
        if most > 0 then
          redis.call('ZADD', holds, lapse_ms, REBUILT .. ' ' .. left)
        end
        redis.call('HSET', key, REBUILT, left)
      end
      delta = math.max(delta + freed, -spent)
      if delta ~= 0 or freed > 0 then
        spent, reserved, mended = spent + delta, reserved - freed, mended + 1
        write(key, spent, reserved)
        redis.call('HSET', key, 'mended', mended)
      end
    end
  end
  answer[4 * i - 3], answer[4 * i - 2], answer[4 * i - 1], answer[4 * i] = spent, reserved, mended, rebuilt
end
return answer
