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
