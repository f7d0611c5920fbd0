"""Queues between Python's processes: messages one way, or round trips, each checked.

python3 queues.py (multiprocessing | faster_fifo) (one-way | round-trip) COUNT

Prints one line: million messages each second; or the median, the 99th and the 99.9th percentile in microseconds.
"""

import multiprocessing
import os
import sys
import time

CAPACITY = {"one-way": 1024, "round-trip": 2}
FILL = b"SHMQ" * 14


def make(kind, capacity):
    if kind == "multiprocessing":
        return multiprocessing.Queue(capacity)
    import faster_fifo

    # Its limit is in bytes: as many pickled messages as the others hold, and its get waits ten seconds by default.
    return faster_fifo.Queue(max_size_bytes=capacity * 96)


def callers(kind, queue):
    """Of a queue: put, and get that may return several messages."""
    if kind == "multiprocessing":
        return queue.put, lambda: [queue.get()]
    return (
        lambda message: queue.put(message, timeout=100.0),
        lambda: queue.get_many(timeout=100.0, max_messages_to_get=64),
    )


def message(number):
    return number.to_bytes(8, "little") + FILL


def check(got, number):
    if got != message(number):
        raise SystemExit(f"message {number} was lost, torn or reordered")


def pin(core):
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[core % len(cores)]})


def produce(kind, queue, ready, count):
    pin(1)
    put, _ = callers(kind, queue)
    ready.wait()
    for number in range(count):
        put(message(number))


def answer(kind, questions, answers, ready, count):
    pin(1)
    _, get = callers(kind, questions)
    put, _ = callers(kind, answers)
    ready.wait()
    for _ in range(count):
        put(get()[0])


def one_way(kind, count):
    queue = make(kind, CAPACITY["one-way"])
    ready = multiprocessing.Barrier(2)
    other = multiprocessing.Process(target=produce, args=(kind, queue, ready, count))
    other.start()
    pin(0)
    _, get = callers(kind, queue)
    ready.wait()
    start = time.perf_counter()
    number = 0
    while number < count:
        for got in get():
            check(got, number)
            number += 1
    elapsed = time.perf_counter() - start
    other.join()
    print(count / elapsed / 1e6)


def round_trip(kind, count):
    questions, answers = (make(kind, CAPACITY["round-trip"]) for _ in range(2))
    ready = multiprocessing.Barrier(2)
    other = multiprocessing.Process(target=answer, args=(kind, questions, answers, ready, count))
    other.start()
    pin(0)
    put, _ = callers(kind, questions)
    _, get = callers(kind, answers)
    ready.wait()
    trips = []
    for number in range(count):
        before = time.perf_counter()
        put(message(number))
        check(get()[0], number)
        trips.append((time.perf_counter() - before) * 1e6)
    other.join()
    trips.sort()
    print(*(trips[count * permille // 1000] for permille in (500, 990, 999)))


if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    KIND, WORK, COUNT = sys.argv[1], sys.argv[2], int(sys.argv[3])
    (one_way if WORK == "one-way" else round_trip)(KIND, COUNT)
