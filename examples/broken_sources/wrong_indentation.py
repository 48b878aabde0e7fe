"""The last line belongs to no block."""


def total(numbers):
    result = 0
    for number in numbers:
        result += number
      return result
