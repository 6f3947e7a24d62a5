-- One step of one limiter in the limits that it shares: what became of its units goes in, then it
-- may ask for one. Only this script writes here, and only Redis's clock counts.
--
-- KEYS  1 units: permit -> the time (µs) by which its request had arrived; in the future while it
--         is in flight: the end of a lease that its owner renews, so that a crash ends by itself.
--         A permit's name ends with its costs, '|tokens=500|requests=1'; one request if it has none
--       2 tickets: who waits, in order; at the end, passed by all, whom nothing but limits of its
--         model's own holds up   3 seen: until when a ticket holds   4 state: epoch, clock,
--         blocked, turn, passed (by how many grants batch was), lately (until when batch that was
--         just served counts as waiting: it may ask again), which permit each who waits asks for;
--         what was learnt of the server, and how often that changed; how many requests were ever
--         granted; and for each window when all that was taken would be drained, at its pace and at
--         a slower one, and what the server said that it takes whatever it counts like (credit): so
--         many more, when so many had been granted, until when that is believed; until when a trial
--         is under way, and which grant that is
-- ARGV  1 who asks: me, or for calls of a model with limits of its own, me/model
--       2 the epoch that I know, or ''   3 the lease, µs   4 the lane that I ask for, or ''
--       5 the permit's name   6 how often the lessons had changed that I know; '' if I learn nothing
--       7 of how many grants one is batch's
--       8 the number of windows, then of each: limit, hold (µs; 0 for what only counts while it is
--         in flight: calls at once), reserve, dimension; of those who learn a gap (µs) and a burst
--         that is allowed at it, the same of a pace that a sliding counter bears, or 0 each, and 1
--         if it may be tried whether one is kept, or 0
--       then what happened: 'put' name age | 'move' name new-name age | 'drop' name | 'hold' name |
--         'block' µs | 'credit' of the window with that hold, more, after which grant | 'doubt' what
--         the server said | 'learn' how often they had changed before, lessons | 'leave' whose
-- Returns {verdict, wait (µs), epoch, now (µs), how often the lessons changed, what they are if
-- that is news ('=' if these are mine), how many requests are in flight beside this, how many were
-- ever granted, used of each window …, how deep this one goes in each …}; the verdict is 'taken',
-- 'tried' (taken, though a sliding counter may refuse it), 'wait', 'aside' (wait: for limits of its
-- model's own alone), 'noted' (nothing was asked for), 'learn' (take in the lessons, then ask
-- again) or 'lost' (this Redis has forgotten what I know: tell it all).
local units, tickets, seen, state = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local me, known, lease, lane = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local learns, every = ARGV[6] ~= '', tonumber(ARGV[7])

local function at(text) return string.format('%.0f', text) end

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
now = math.max(now, tonumber(redis.call('HGET', state, 'clock') or '0'))
redis.call('HSET', state, 'clock', at(now))

local windows, longest, shortest = {}, 0, math.huge
local argument = 9
for number = 1, tonumber(ARGV[8]) do
  local window = {
    limit = tonumber(ARGV[argument]),
    hold = tonumber(ARGV[argument + 1]),
    reserve = tonumber(ARGV[argument + 2]),
    dimension = ARGV[argument + 3],
    tries = ARGV[argument + 8] == '1',
    paces = {},
  }
  for place = argument + 4, argument + 6, 2 do
    if ARGV[place] ~= '0' then
      local name = 'drained:' .. ARGV[argument + 1] .. ':' .. ARGV[place]
      local pace = {
        name = name,
        gap = tonumber(ARGV[place]),
        burst = tonumber(ARGV[place + 1]),
        at = tonumber(redis.call('HGET', state, name) or '0'),
      }
      table.insert(window.paces, pace)
    end
  end
  windows[number] = window
  longest = math.max(longest, window.hold)
  if window.hold > 0 then shortest = math.min(shortest, window.hold) end
  argument = argument + 9
end
local keep = learns and 2 * longest or longest

local blocked = tonumber(redis.call('HGET', state, 'blocked') or '0')
local function block(until_)
  blocked = math.max(blocked, until_)
  redis.call('HSET', state, 'blocked', at(blocked))
end

local epoch = redis.call('HGET', state, 'epoch')
if not epoch then
  epoch = me .. at(now)
  redis.call('HSET', state, 'epoch', epoch)
  if known ~= '' then block(now + shortest) end
end

local lessons, told = redis.call('HGET', state, 'lessons') or '', false
local changed = redis.call('HGET', state, 'changed') or '0'

local function leave(who)
  redis.call('ZREM', tickets, who)
  redis.call('ZREM', seen, who)
  redis.call('HDEL', state, 'asks:' .. who)
end

local function cost(permit, dimension)
  if not permit:find('|', 1, true) then return dimension == 'requests' and 1 or 0 end
  return tonumber(permit:match('|' .. dimension .. '=(%d+)') or 0)
end

local granted = tonumber(redis.call('HGET', state, 'granted') or '0')
local function grant(permit)
  granted = redis.call('HINCRBY', state, 'granted', cost(permit, 'requests'))
end

-- A unit that nobody here knew was granted elsewhere.
local function put(permit, until_)
  if redis.call('ZADD', units, at(until_), permit) == 1 then grant(permit) end
end

local function under_way()
  local until_, which = (redis.call('HGET', state, 'trial') or '0 0'):match('(%d+) (%d+)')
  return tonumber(until_), tonumber(which)
end

while argument <= #ARGV do
  local what = ARGV[argument]
  if what == 'put' then
    put(ARGV[argument + 1], now - tonumber(ARGV[argument + 2]))
    argument = argument + 3
  elseif what == 'hold' then
    put(ARGV[argument + 1], now + lease)
    argument = argument + 2
  elseif what == 'move' then
    local until_ = now - tonumber(ARGV[argument + 3])
    if redis.call('ZREM', units, ARGV[argument + 1]) == 1 then
      redis.call('ZADD', units, at(until_), ARGV[argument + 2])
    else
      put(ARGV[argument + 2], until_)
    end
    argument = argument + 4
  elseif what == 'drop' then
    redis.call('ZREM', units, ARGV[argument + 1])
    argument = argument + 2
  elseif what == 'block' then
    block(now + tonumber(ARGV[argument + 1]))
    argument = argument + 2
  elseif what == 'credit' then
    local field, since = 'credit:' .. ARGV[argument + 1], tonumber(ARGV[argument + 3])
    local said = redis.call('HGET', state, field) or '0 0 0'
    -- a Redis that has forgotten, or a replica that lags, has granted less than that
    if known == epoch and since <= granted and since >= tonumber(said:match(' (%d+) ')) then
      local words = {ARGV[argument + 2], at(since), at(now + tonumber(ARGV[argument + 1]))}
      redis.call('HSET', state, field, table.concat(words, ' '))
      local _, trial = under_way()
      if words[1] ~= '0' and since >= trial then redis.call('HDEL', state, 'trial') end
    end
    argument = argument + 4
  elseif what == 'doubt' then
    for _, window in ipairs(windows) do
      redis.call('HDEL', state, 'credit:' .. at(window.hold))
    end
    argument = argument + 1
  elseif what == 'learn' then
    if ARGV[argument + 1] == changed then
      redis.call('HSET', state, 'lessons', ARGV[argument + 2])
      changed, told = tostring(redis.call('HINCRBY', state, 'changed', 1)), true
    end
    argument = argument + 3
  else
    leave(ARGV[argument + 1])
    argument = argument + 2
  end
end

redis.call('ZREMRANGEBYSCORE', units, '-inf', at(now - keep))
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', seen, '-inf', '(' .. at(now))) do leave(gone) end

local out = redis.call('ZRANGE', units, 0, -1, 'WITHSCORES')
local used, flying = {}, 0
for number, window in ipairs(windows) do
  used[number], window.known = 0, 0
  for place = 1, #out, 2 do
    local arrived = tonumber(out[place + 1])
    if arrived > now - 2 * window.hold then
      local units_ = cost(out[place], window.dimension)
      window.known = window.known + units_
      if arrived > now - window.hold then used[number] = used[number] + units_ end
    end
  end
end
for place = 2, #out, 2 do
  if tonumber(out[place]) > now then flying = flying + cost(out[place - 1], 'requests') end
end

-- When so many units more than now are free in a window; what is in flight tells nothing yet, and
-- what counts no longer than that may be back at any moment.
local function returns(window, missing)
  for place = 1, #out, 2 do
    local arrived = tonumber(out[place + 1])
    if arrived > now then
      return now + (window.hold > 0 and math.min(window.hold, 1000000) or 100000)
    end
    if arrived > now - window.hold then
      missing = missing - cost(out[place], window.dimension)
      if missing <= 0 then return arrived + window.hold end
    end
  end
  return now + window.hold
end

local function credit(window)
  local said = redis.call('HGET', state, 'credit:' .. at(window.hold)) or '0 0 0'
  local more, since, until_ = said:match('(%d+) (%d+) (%d+)')
  return now < tonumber(until_) and more - (granted - since) or 0
end

-- When the server has drained enough of a burst; of one that no sliding counter could mind, ask not,
-- nor if it is to be tried whether one is kept.
local function drained(window, need, tries)
  local wake = 0
  for number, pace in ipairs(window.paces) do
    local minds = number == 1 or window.known + need > window.limit and not (tries and window.tries)
    if pace.at > now and minds then
      wake = math.max(wake, pace.at + (need - pace.burst) * pace.gap)
    end
  end
  return wake
end

-- Turns are numbered from 1 on in lane 1, from -2 aside on in lane 0. Who is held up by limits of
-- its model alone keeps its turn, and stands behind all others: from 2 aside on, or from aside on.
local aside = 2 ^ 51

local function wait_for(ahead, freely, everybodys, tries)
  local wake = 0
  for number, window in ipairs(windows) do
    local need = cost(ARGV[5], window.dimension)
    if need > 0 and not (everybodys and window.dimension:find(':', 1, true)) then
      need = need + (ahead[number] or 0)
      local missing = used[number] + need + (freely and 0 or window.reserve) - window.limit
      if missing > 0 then wake = math.max(wake, returns(window, missing)) end
      if window.paces[1] and credit(window) < need then
        wake = math.max(wake, drained(window, need, tries))
      end
    end
  end
  return math.max(wake, blocked)
end

local verdict, wait, depths = 'noted', 0, {}
if known ~= '' and known ~= epoch then
  verdict = 'lost'
elseif lane ~= '' and learns and ARGV[6] ~= changed and not told then
  verdict = 'learn'
elseif lane ~= '' then
  local lately = tonumber(redis.call('HGET', state, 'lately') or '0')
  local batch_waits = lately > now or redis.call('ZCOUNT', tickets, '0', '(' .. at(aside)) > 0
  local turn = tonumber(redis.call('ZSCORE', tickets, me) or nil)
  if turn and turn >= aside then turn = turn - (turn < 2 * aside and 3 or 2) * aside end
  if not turn or (lane == '0') ~= (turn < 0) then
    turn = redis.call('HINCRBY', state, 'turn', 1)
    if lane == '0' then turn = turn - 2 * aside end
  end
  redis.call('ZADD', tickets, at(turn), me)
  -- See _sansio/lanes.py: batch that was passed by is owed turns, and takes them without a reserve.
  local passed = batch_waits and tonumber(redis.call('HGET', state, 'passed') or '0') or 0
  local owed = math.floor(passed / (every - 1))
  local ahead, freely, from, to = {}, lane == '0', '-inf', '(' .. at(turn)
  local function go_first(those, times)
    for _, who in ipairs(those) do
      local permit = redis.call('HGET', state, 'asks:' .. who) or ''
      for number, window in ipairs(windows) do
        ahead[number] = (ahead[number] or 0) + times * cost(permit, window.dimension)
      end
    end
  end
  if freely then
    local first = redis.call('ZRANGEBYSCORE', tickets, '0', '(' .. at(aside), 'LIMIT', 0, 1)
    go_first(first, owed)
  elseif redis.call('ZCOUNT', tickets, '0', to) < owed then
    freely, from = true, '0'
  end
  go_first(redis.call('ZRANGEBYSCORE', tickets, from, to), 1)
  local wake = wait_for(ahead, freely)
  if wake <= now then
    verdict = 'taken'
  else -- one at a time is tried, and believed to be accepted after a second; with none under way,
    -- or it would not be known which of them is refused
    local sooner = wait_for(ahead, freely, false, true)
    local until_ = under_way()
    if sooner <= now and until_ <= now then
      if flying == 0 then
        verdict = 'tried'
        redis.call('HSET', state, 'trial', at(now + 1000000) .. ' ' .. at(granted + 1))
      else
        until_ = now + 100000
      end
    end
    wake = math.min(wake, math.max(sooner, until_))
  end
  if verdict ~= 'noted' then
    redis.call('ZADD', units, at(now + lease), ARGV[5])
    grant(ARGV[5])
    leave(me)
    if lane == '1' then
      passed = math.max(0, passed - (every - 1))
      redis.call('HSET', state, 'lately', at(now + 1000000))
    elseif batch_waits then
      passed = passed + 1
    end
    redis.call('HSET', state, 'passed', at(passed))
    for number, window in ipairs(windows) do
      local units_ = cost(ARGV[5], window.dimension)
      used[number] = used[number] + units_
      for place, pace in ipairs(window.paces) do
        pace.at = math.max(pace.at, now) + units_ * pace.gap
        pace.at = math.min(pace.at, now + window.limit * pace.gap) -- credit let go what was ahead
        redis.call('HSET', state, pace.name, at(pace.at))
        if place == 1 then depths[number] = math.ceil((pace.at - now) / pace.gap) end
      end
    end
  else
    -- Who is ahead may give up, and batch be owed a turn: nobody sleeps long beyond the time at
    -- which he could be the first.
    wake = math.min(wake, math.max(wait_for({}, true), now) + 1000000)
    local everybodys = wait_for(ahead, freely, true) -- who waits for that is not aside before
    if everybodys > now then wake = math.min(wake, everybodys) end
    verdict, wait = 'wait', wake - now
    if everybodys <= now then
      verdict = 'aside'
      redis.call('ZADD', tickets, at(turn + (lane == '0' and 3 or 2) * aside), me)
    end
    redis.call('ZADD', seen, at(wake + 2000000), me)
    redis.call('HSET', state, 'asks:' .. me, ARGV[5])
  end
end

for _, key in ipairs(KEYS) do
  redis.call('PEXPIRE', key, math.ceil((keep + lease) / 1000) + 60000)
end
if lessons ~= '' or told then redis.call('PEXPIRE', state, 30 * 86400000) end
local news = told and '=' or ARGV[6] ~= changed and lessons or ''
local reply = {verdict, at(wait), epoch, at(now), changed, news, flying, granted}
for number = 1, #used do
  reply[8 + number], reply[8 + #used + number] = used[number], depths[number] or 0
end
return reply
