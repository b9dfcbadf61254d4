-- Join what this replica has learnt of models with what all have, as if every lesson had been given in one place.
-- KEYS     one hash a model: for each figure its value and, under NAME:n, how many lessons are in it
-- ARGV[1]  JSON, a list for each key of a list for each figure: [name, lowest, highest, value when last shared, value
--          now, kept: how much of the former is in the latter, lessons since, lessons in all]
-- ARGV[2]  lessons that are counted at most; more weigh no less
-- ARGV[3]  milliseconds after which a model that nobody learns of is forgotten
-- returns  a list for each key: the shared value and its count of lessons, both as text, for each figure
-- A value that is missing, or is none, is begun anew with what this replica knows in all.
local answer = {}
for index, figures in ipairs(cjson.decode(ARGV[1])) do
    local key, joined, changes = KEYS[index], {}, {}
    for _, figure in ipairs(figures) do
        local name, lowest, highest, before, now, kept, lessons, known = unpack(figure)
        local stored = redis.pcall('HMGET', key, name, name .. ':n')
        if stored.err then -- somebody else's value in our place
            redis.call('DEL', key)
            stored = {}
        end
        local value, count = tonumber(stored[1] or ''), tonumber(stored[2] or '')
        if not (value and count and value >= lowest and value <= highest and count >= 0) then
            value, count, lessons = now, known, known
        elseif lessons > 0 then
            value = math.min(math.max(now + kept * (value - before), lowest), highest)
            count = count + lessons
        end
        count = math.min(count, tonumber(ARGV[2]))
        local text = string.format('%.17g', value)
        if lessons > 0 then
            changes[#changes + 1] = name
            changes[#changes + 1] = text
            changes[#changes + 1] = name .. ':n'
            changes[#changes + 1] = string.format('%d', count)
        end
        joined[#joined + 1] = text
        joined[#joined + 1] = string.format('%d', count)
    end
    if #changes > 0 then
        redis.call('HSET', key, unpack(changes))
        redis.call('PEXPIRE', key, ARGV[3])
    end
    answer[index] = joined
end
return answer
