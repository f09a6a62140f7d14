#!/usr/bin/env python3
"""Carries Ethernet frames between two interfaces, each later by a given time: a slow line where the kernel has no netem.

usage: delay.py INTERFACE INTERFACE MILLISECONDS          until it is killed
       delay.py --plain INTERFACE...                      turns off what a network card would do for the kernel

Frames are taken and sent as they are, so senders must compute checksums and cut segments themselves: run --plain on the interfaces
at both ends first. Needs root.
"""
import array, collections, fcntl, select, socket, struct, sys, time

SIOCETHTOOL = 0x8946
# Checksums, segments, generic segments, gathering received segments: ethtool's commands to set them.
OFFLOADS = [0x17, 0x1F, 0x24, 0x2C]


def plain(name):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        for command in OFFLOADS:
            value = array.array("B", struct.pack("II", command, 0))
            request = struct.pack("16sP", name.encode(), value.buffer_info()[0])
            try:
                fcntl.ioctl(s, SIOCETHTOOL, request)
            except OSError as error:
                # A kernel may know fewer of them; without the first nothing arrives.
                if command == OFFLOADS[0]:
                    sys.exit(f"{name}: {error}")


def carry(names, delay):
    ends = []
    for name in names:
        end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 24)
        end.bind((name, 0))
        end.setblocking(False)
        ends.append(end)
    waiting = [collections.deque(), collections.deque()]
    while True:
        now = time.monotonic()
        due = min((queue[0][0] for queue in waiting if queue), default=now + 1)
        ready, _, _ = select.select(ends, [], [], max(due - now, 0))
        for end in ready:
            side = ends.index(end)
            for _ in range(64):
                try:
                    frame, address = end.recvfrom(1 << 16)
                except BlockingIOError:
                    break
                # What was sent here comes by again.
                if address[2] != socket.PACKET_OUTGOING:
                    waiting[side].append((time.monotonic() + delay, frame))
        now = time.monotonic()
        for side, queue in enumerate(waiting):
            while queue and queue[0][0] <= now:
                try:
                    ends[1 - side].send(queue[0][1])
                except BlockingIOError:
                    break
                queue.popleft()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--plain"] and len(sys.argv) > 2:
        for name in sys.argv[2:]:
            plain(name)
    elif len(sys.argv) == 4:
        carry(sys.argv[1:3], float(sys.argv[3]) / 1e3)
    else:
        sys.exit(__doc__)
