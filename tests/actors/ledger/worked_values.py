#!/usr/bin/env python3
"""Works out the expected values of money_rules_test.cpp with exact fractions and 60-digit decimals, without any of the node's code."""
from decimal import Decimal, getcontext
from fractions import Fraction
from math import floor
import random

getcontext().prec = 60
ATTO = 10**18


def multiplier(stake):
    return floor(10**6 * (1 + Decimal("0.1") * (1 + Decimal(stake) / 1000).ln() / Decimal(2).ln()))


def split(settled, shares):
    burn = -((-settled * 500) // 10000)
    rest = settled - burn
    driver, pool, validator = (rest * bp // 10000 for bp in (1500, 7000, 1500))
    work = sum(counted for counted, _ in shares)
    workers = [pool * credited // work for _, credited in shares]
    return settled - driver - validator - sum(workers), driver, validator, workers


def training(tokens, layers, rate, *ppms):
    amount = Fraction(rate) * tokens * layers / 4096
    amount = floor(amount)
    for ppm in ppms:
        amount = amount * ppm // 10**6
    return amount


# Where the logarithm is a whole number the decimal logarithm may fall a hair short; those rows are exact by definition.
for stake in (1000, 1001, 2000, 5000, 10000, 15000, 50000, 100000, 123457, 1000000, 10000000):
    print(f"    {{{stake}, {multiplier(stake)}}},")
print(split(168 * 10**14, [(1, 1)]))
random.seed(3)
for _ in range(6):
    settled = random.randrange(1, 10**random.randrange(1, 24))
    shares = []
    for _ in range(random.randrange(1, 5)):
        counted = random.randrange(1, 10**6)
        shares.append((counted, random.randrange(0, counted + 1)))
    burn, driver, validator, workers = split(settled, shares)
    pairs = ", ".join(f"{{{c}, {k}}}" for c, k in shares)
    parts = ", ".join(f'"{w}"' for w in workers)
    print(f'    {{"{settled}", {{{pairs}}}, "{burn}", "{driver}", "{validator}", {{{parts}}}}},')
for tokens, layers, rate, ppms in ((4095, 7, 5 * 10**14, (1600000, 1499999)), (60 * 4096, 10, 5 * 10**14, ()), (1, 1, 5 * 10**14, ()), (4095, 7, 5 * 10**14, (1345943, 1600000, 1087654, 1499999)),
                                   (4096, 3, 3 * 10**14, (700000, 1100000, 1100000))):
    print(tokens, layers, ppms, training(tokens, layers, rate, *ppms))


# -- tables of money_worked_test.cpp, each line as it stands there. Ratios are exact fractions, and each result is cut once.
def fee(amount):
    return max(1, -floor(-Fraction(amount, 1000)))


def reputation(accepted, rejected, slashes):
    if accepted + rejected < 100:
        return 10**6
    return floor(10**6 * (1 + Fraction(1, 10) * Fraction(accepted, accepted + rejected + 100 * slashes)))


def role(driver, validator, training):
    return floor(10**6 * (1 + Fraction(2, 10) * driver + Fraction(3, 10) * validator + Fraction(1, 10) * training))


def scarcity(replicas, nodes):
    target = max(3, floor(Fraction(1, 10) * nodes))
    each = [1 + Fraction(1, 2) * Fraction(target - r, target) if r < target else Fraction(1) for r in replicas]
    return floor(10**6 * sum(each) / len(each))


def uptime(milliseconds):
    return floor(Fraction(ATTO, 10000) * milliseconds / 60000)


def freshness(age):
    return {0: 10**6, 1: 700000, 2: 500000, 3: 300000}[sum(age >= limit for limit in (3600, 86400, 7 * 86400))]


def reward(tokens, layers, age, *ppms):
    """Asynchronous where an age is given. `ppms`: stake, role, reputation, scarcity; each step is cut."""
    amount = floor(Fraction(ATTO, 10000) * (5 if age is None else 3) * tokens * layers / 4096)
    if age is not None:
        amount = amount * freshness(age) // 10**6
    for ppm in ppms:
        amount = amount * ppm // 10**6
    return amount


print("fees")
for amount in (1, 999, 1000, 1001, 1999, 2000, 2001, 250 * ATTO, 250 * ATTO + 1, 10**26 + 7, 123456789012345678901234567):
    print(f'    {{"{amount}", "{fee(amount)}"}},')
for _ in range(6):
    amount = random.randrange(1, 10**random.randrange(1, 33))
    print(f'    {{"{amount}", "{fee(amount)}"}},')
print("reputation")
for row in ((0, 99, 0), (99, 0, 0), (100, 0, 0), (99, 1, 0), (0, 100, 0), (33, 67, 0), (100, 0, 1), (5183, 17, 0), (5183, 17, 3), (43200, 0, 0), (43199, 1, 12),
            (1, 99, 43200)):
    print(f"    {{{row[0]}, {row[1]}, {row[2]}, {reputation(*row)}}},")
print("roles")
for n in range(8):
    row = (n & 1, n >> 1 & 1, n >> 2 & 1)
    print("    {" + ", ".join("true" if each else "false" for each in row) + f", {role(*row)}}},")
print("scarcity")
for _ in range(12):
    nodes = random.choice((1, 7, 29, 31, 40, 99, 137, 1009, 54321))
    replicas = [random.randrange(1, max(4, nodes // 8 + 2)) for _ in range(random.choice((1, 2, 3, 7, 12)))]
    print(f"    {{{{{', '.join(map(str, replicas))}}}, {nodes}, {scarcity(replicas, nodes)}}},")
print("uptime")
for milliseconds in (1, 2, 3, 59, 1000, 59_999, 60_000, 60_001, 119_999, 120_000):
    print(f'    {{{milliseconds}, "{uptime(milliseconds)}"}},')
print("rewards")
for _ in range(10):
    tokens, layers = random.randrange(1, 10**7), random.randrange(1, 49)
    age = random.choice((None, None, 0, 3599, 3600, 86399, 86400, 604799, 604800))
    ppms = (multiplier(random.choice((1001, 2000, 7777, 123457))), role(*random.choice(((0, 0, 1), (1, 0, 1), (1, 1, 1)))),
            reputation(*random.choice(((100, 0, 0), (5183, 17, 3)))), scarcity([1, 2, 5], random.choice((9, 31, 77))))
    asynchronous = "false, 0" if age is None else f"true, {age}"
    print(f'    {{{tokens}, {layers}, {asynchronous}, {{{", ".join(map(str, ppms))}}}, "{reward(tokens, layers, age, *ppms)}"}},')
print("a day of capped rewards")
minted, shuffled = 0, random.Random(20260115)
for _ in range(9):
    tokens, layers = shuffled.randrange(1, 3 * 10**7), shuffled.randrange(1, 99)
    full = reward(tokens, layers, None, role(0, 0, 1))
    amount = min(full, 100 * ATTO, 430 * ATTO + 1 - minted)
    minted += amount
    print(f'    {{{tokens}, {layers}, "{amount}", {"true" if amount < full else "false"}}},')
