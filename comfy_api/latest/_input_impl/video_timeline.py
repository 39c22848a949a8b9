"""Computes when each kept frame of a trimmed video is shown, from zero on. All times are ticks of the source's time base."""


class FrameTimeline:
    """Shifts and repairs timestamps, so that they start at 0, only grow, and end where the window or the stream ends.

    *step* is the usual distance between two frames. *start* and *window_end* are the ends of the requested part, *stream_end* is the end
    that the source declares, all in source time; an end is None if it is unknown.
    """

    def __init__(self, step: int, start: int, window_end: int | None, stream_end: int | None) -> None:
        self.step = step
        self.start = start
        self.window_end = window_end
        ends = [end for end in (window_end, stream_end) if end is not None]
        self.source_end = min(ends) if ends else None
        self.offset: int | None = None
        self.last: int | None = None
        self.end: int | None = None
        self.durations: dict[int, int] = {}

    def place(self, pts: int | None, duration: int | None) -> int | None:
        """The new timestamp of a frame shown at *pts* for *duration* ticks, or None if nothing of it remains to be shown."""
        length = duration or self.step
        limit = None
        if pts is not None:
            if self.window_end is not None:
                if pts >= self.window_end:
                    return None
                length = min(length, self.window_end - pts)
            if self.offset is None:
                self.offset = pts
            limit = None if self.source_end is None else self.source_end - self.offset
            pts -= self.offset
            if limit is not None and pts + length > limit:
                earlier = limit - length
                if earlier >= (0 if self.last is None else self.last + 1):
                    pts = min(pts, earlier)
                elif pts >= limit:
                    return None
                else:
                    length = limit - pts
        if pts is None or (self.last is not None and pts <= self.last):
            # Broken sources lack timestamps or go backwards, which no container accepts.
            pts = 0 if self.last is None else self.last + self.step
            if limit is not None and pts + length > limit:
                if pts >= limit:
                    return None
                length = limit - pts
        self.last, self.end = pts, pts + length
        self.durations[pts] = length
        return pts

    def close_window(self) -> None:
        """Show the last kept frame until the window's end, because the source continues after the window."""
        if self.last is None or self.window_end is None:
            return
        offset = self.start if self.offset is None else self.offset
        end = self.end = max(self.end or 0, self.window_end - offset)
        if self.last in self.durations:
            self.durations[self.last] = max(self.durations[self.last], end - self.last)

    def take_duration(self, pts: int) -> int:
        """How many ticks the frame placed at *pts* is shown, 0 if it was never placed. Asked once per frame."""
        return self.durations.pop(pts, 0)
