-- Tell by which requests budgets are held, those that lapse first before others.
--
-- KEYS      the sorted sets of what is held, as reserve.lua writes them, all under one {organization} tag
-- ARGV[1]   how many to tell of each at most
-- returns   {"event amount"...} of each, in the order of KEYS
local answer = {}
for i = 1, #KEYS do
  answer[i] = redis.call('ZRANGEBYSCORE', KEYS[i], '-inf', '+inf', 'LIMIT', 0, ARGV[1])
end
return answer
