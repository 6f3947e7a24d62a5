-- One step of one limiter in the limits that it shares: what became of its units goes in, then it
-- may ask for one. Only this script writes here, and only Redis's clock counts.
--
-- KEYS  1 units: permit -> the time (µs) by which its request had arrived; in the future while it
--         is in flight: the end of a lease that its owner renews, so that a crash ends by itself.
--         A permit's name ends with its costs, '|tokens=500|requests=1'; one request if it has none
--       2 tickets: who waits, in order   3 seen: until when a ticket holds   4 state: epoch, clock,
--         blocked, turn, passed (by how many grants batch was), lately (until when batch that was
--         just served counts as waiting: it may ask again)
-- ARGV  1 me   2 the epoch that I know, or ''   3 the lease, µs   4 the lane that I ask for, or ''
--       5 the permit's name   6 of how many grants one is batch's   7 the number of windows, then
--       limit, hold (µs; 0 for what only counts while it is in flight: calls at once), reserve,
--       dimension; then what happened: 'put' name age | 'drop' name | 'hold' name | 'block' µs |
--       'leave'
-- Returns {verdict, wait (µs), epoch, used of each window …}; the verdict is 'taken', 'wait',
-- 'noted' (nothing was asked for) or 'lost' (this Redis has forgotten what I know: tell it all).
local units, tickets, seen, state = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local me, known, lease, lane = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local every = tonumber(ARGV[6])

local function at(text) return string.format('%.0f', text) end

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
now = math.max(now, tonumber(redis.call('HGET', state, 'clock') or '0'))
redis.call('HSET', state, 'clock', at(now))

local windows, longest, shortest = {}, 0, math.huge
local argument = 8
for number = 1, tonumber(ARGV[7]) do
  local window = {
    limit = tonumber(ARGV[argument]),
    hold = tonumber(ARGV[argument + 1]),
    reserve = tonumber(ARGV[argument + 2]),
    dimension = ARGV[argument + 3],
  }
  windows[number] = window
  longest = math.max(longest, window.hold)
  if window.hold > 0 then shortest = math.min(shortest, window.hold) end
  argument = argument + 4
end

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

local function leave(who)
  redis.call('ZREM', tickets, who)
  redis.call('ZREM', seen, who)
end

while argument <= #ARGV do
  local what = ARGV[argument]
  if what == 'put' then
    redis.call('ZADD', units, at(now - tonumber(ARGV[argument + 2])), ARGV[argument + 1])
    argument = argument + 3
  elseif what == 'hold' then
    redis.call('ZADD', units, at(now + lease), ARGV[argument + 1])
    argument = argument + 2
  elseif what == 'drop' then
    redis.call('ZREM', units, ARGV[argument + 1])
    argument = argument + 2
  elseif what == 'block' then
    block(now + tonumber(ARGV[argument + 1]))
    argument = argument + 2
  else
    leave(me)
    argument = argument + 1
  end
end

redis.call('ZREMRANGEBYSCORE', units, '-inf', at(now - longest))
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', seen, '-inf', '(' .. at(now))) do leave(gone) end

local function cost(permit, dimension)
  if not permit:find('|', 1, true) then return dimension == 'requests' and 1 or 0 end
  return tonumber(permit:match('|' .. dimension .. '=(%d+)') or 0)
end

local out = redis.call('ZRANGE', units, 0, -1, 'WITHSCORES')
local used = {}
for number, window in ipairs(windows) do
  used[number] = 0
  for place = 1, #out, 2 do
    if tonumber(out[place + 1]) > now - window.hold then
      used[number] = used[number] + cost(out[place], window.dimension)
    end
  end
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

local function wait_for(ahead, freely)
  local wake = 0
  for number, window in ipairs(windows) do
    local need = cost(ARGV[5], window.dimension)
    if need > 0 then
      if not freely then need = need + window.reserve end
      if window.dimension == 'requests' or window.dimension == 'concurrent' then
        need = need + ahead
      end
      local missing = used[number] + need - window.limit
      if missing > 0 then wake = math.max(wake, returns(window, missing)) end
    end
  end
  return math.max(wake, blocked)
end

local verdict, wait = 'noted', 0
if known ~= '' and known ~= epoch then
  verdict = 'lost'
elseif lane ~= '' then
  local lately = tonumber(redis.call('HGET', state, 'lately') or '0')
  local batch_waits = lately > now or redis.call('ZCOUNT', tickets, '0', '+inf') > 0
  local turn = redis.call('ZSCORE', tickets, me)
  if not turn or (lane == '0') ~= (tonumber(turn) < 0) then
    turn = redis.call('HINCRBY', state, 'turn', 1)
    if lane == '0' then turn = turn - 2 ^ 52 end
    redis.call('ZADD', tickets, at(turn), me)
  end
  -- See _sansio/lanes.py: batch that was passed by is owed turns, and takes them without a reserve.
  local passed = batch_waits and tonumber(redis.call('HGET', state, 'passed') or '0') or 0
  local owed = math.floor(passed / (every - 1))
  local ahead, freely = redis.call('ZRANK', tickets, me), lane == '0'
  if freely then
    if redis.call('ZCOUNT', tickets, '0', '+inf') > 0 then ahead = ahead + owed end
  else
    local batch_ahead = ahead - redis.call('ZCOUNT', tickets, '-inf', '(0')
    if batch_ahead < owed then ahead, freely = batch_ahead, true end
  end
  local wake = wait_for(ahead, freely)
  if wake <= now then
    verdict = 'taken'
    redis.call('ZADD', units, at(now + lease), ARGV[5])
    leave(me)
    if lane == '1' then
      passed = math.max(0, passed - (every - 1))
      redis.call('HSET', state, 'lately', at(now + 1000000))
    elseif batch_waits then
      passed = passed + 1
    end
    redis.call('HSET', state, 'passed', at(passed))
    for number, window in ipairs(windows) do
      used[number] = used[number] + cost(ARGV[5], window.dimension)
    end
  else
    -- Who is ahead may give up, and batch be owed a turn: nobody sleeps long beyond the time at
    -- which he could be the first.
    wake = math.min(wake, math.max(wait_for(0, true), now) + 1000000)
    verdict, wait = 'wait', wake - now
    redis.call('ZADD', seen, at(wake + 2000000), me)
  end
end

for _, key in ipairs(KEYS) do
  redis.call('PEXPIRE', key, math.ceil((longest + lease) / 1000) + 60000)
end
local reply = {verdict, at(wait), epoch}
for number = 1, #used do reply[3 + number] = used[number] end
return reply
