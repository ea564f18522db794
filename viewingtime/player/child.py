"""One member of a family in front of its devices: plays an evening and reads what was counted."""

import itertools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from viewingtime.player.evening import Act, Member, Step
from viewingtime.player.reckoning import (
    OwnClock,
    Reckoning,
    Rules,
    Screen,
    ScreenTime,
    Sent,
    Title,
    Told,
)
from viewingtime.player.report import LEFT, SessionCount, Watched
from viewingtime.player.service import GivenUpError, Line, Reply, Surprises

#: Seconds after which a player sends a beat again whose answer got lost.
RESEND_SECONDS = 0.5
#: Acts that a dark screen can begin with.
_OPENING = frozenset({Act.BEGIN, Act.BEGIN_UNHEARD, Act.SWITCH_DEVICE, Act.RESTART})
#: Acts after which no beats are sent until the next one.
_SILENT = frozenset({Act.LOSE_CONNECTION, Act.CRASH, Act.STOP, Act.VANISH})


@dataclass
class Device:
    """A player's device and the session that it believes to have open."""

    device_id: str
    device_type: str
    line: Line
    session_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Pace:
    """When to beat: as the service says, but every `longest_seconds` at least.

    `stop` ends the evening early for everybody.
    """

    longest_seconds: float
    stop: threading.Event


class Child:
    """One profile and its evening, for one thread of its own."""

    def __init__(
        self,
        *,
        family: int,
        member: Member,
        profile_id: UUID,
        rules: Rules,
        devices: Sequence[Device],
        steps: Sequence[Step],
        titles: Sequence[Title],
        pace: Pace,
        clock: OwnClock,
        surprises: Surprises,
    ) -> None:
        self.family = family
        self.member = member
        self.beats = 0
        self._profile_id = profile_id
        self._devices = itertools.cycle(devices)
        self._device = next(self._devices)
        self._all_devices = devices
        self._steps = steps
        self._titles = itertools.cycle(titles)
        self._title = next(self._titles)
        self._pace = pace
        self._clock = clock
        self._surprises = surprises
        self._reckoning = Reckoning(rules)
        self._screen = ScreenTime(clock.now())
        self._seen: dict[UUID, None] = {}
        self._next_beat_at = clock.now()
        self._ran_out = False
        self._ending = "broke off"
        self._acts: dict[Act, Callable[[], None]] = {
            Act.BEGIN: self._open,
            Act.BEGIN_UNHEARD: self._begin_unheard,
            Act.PAUSE: self._pause,
            Act.RESUME: self._resume,
            Act.LOSE_CONNECTION: self._lose_connection,
            Act.RECONNECT: self._resume,
            Act.LOSE_ANSWER: self._lose_answer,
            Act.SWITCH_DEVICE: self._switch_device,
            Act.CRASH: self._crash,
            Act.RESTART: self._open,
            Act.CHANGE_TITLE: self._change_title,
            Act.STOP: self._stop,
            Act.VANISH: self._vanish,
        }

    # The evening

    def play(self, start_at: datetime) -> None:
        """Plays the evening from `start_at` on, in real time."""
        try:
            self._wait_until(start_at)
            until = start_at
            for step in self._steps:
                if self._pace.stop.is_set():
                    break
                until += timedelta(seconds=step.seconds)
                self._do(step.act)
                self._go_on(until, is_silent=step.act in _SILENT)
            self._do(Act.STOP)
        finally:
            self._hang_up()

    def _go_on(self, until: datetime, *, is_silent: bool) -> None:
        while not self._pace.stop.is_set():
            at_rest = is_silent or self._screen.shows is Screen.DARK
            if at_rest or self._next_beat_at >= until:
                self._wait_until(until)
                return
            self._wait_until(self._next_beat_at)
            if not self._pace.stop.is_set():
                self._beat(self._device)

    def _wait_until(self, instant: datetime) -> None:
        self._pace.stop.wait(max(0.0, (instant - self._clock.now()).total_seconds()))

    def _do(self, act: Act) -> None:
        if act in _OPENING or self._screen.shows is not Screen.DARK:
            self._acts[act]()
        elif act is Act.CHANGE_TITLE:
            self._title = next(self._titles)
            self._open()
        # A player that was blocked has nothing to pause, to lose or to stop.

    def _begin_unheard(self) -> None:
        self._open(is_heard=False)
        self._pace.stop.wait(RESEND_SECONDS)
        self._open()

    def _pause(self) -> None:
        self._show(Screen.PAUSED)
        self._beat(self._device)

    def _resume(self) -> None:
        self._show(Screen.PLAYING)
        self._beat(self._device)

    def _lose_connection(self) -> None:
        self._device.line.close()

    def _lose_answer(self) -> None:
        self._beat(self._device, is_heard=False)
        self._pace.stop.wait(RESEND_SECONDS)
        self._beat(self._device)

    def _change_title(self) -> None:
        self._title = next(self._titles)
        self._beat(self._device)

    def _crash(self) -> None:
        self._show(Screen.DARK)
        self._device.line.close()

    def _vanish(self) -> None:
        self._crash()
        self._ending = LEFT

    def _stop(self) -> None:
        self._show(Screen.DARK)
        if self._device.session_id is not None:
            self._end(self._device.session_id, self._device.line)
        self._ending = "stopped"

    def _open(self, *, is_heard: bool = True) -> None:
        self._device.session_id = None
        self._beat(self._device, is_heard=is_heard)

    def _switch_device(self) -> None:
        """The new device opens its session; the old one beats once more before it knows."""
        old, was_playing = self._device, self._screen.shows is not Screen.DARK
        self._device = next(self._devices)
        self._open()
        if was_playing and old.session_id is not None:
            told = self._send(old)
            if told is not None and not told.is_blocked:
                # An adult's devices play side by side.
                self._end(old.session_id, old.line)

    def _show(self, screen: Screen) -> None:
        self._screen.show(screen, self._clock.now())

    # Beats

    def _beat(self, device: Device, *, is_heard: bool = True) -> None:
        """A beat of the device that is watched; without `is_heard` the player misses the answer."""
        told = self._send(device)
        pause = self._pace.longest_seconds
        if told is not None and is_heard:
            device.session_id = told.session_id or device.session_id
            if told.is_blocked:
                self._show(Screen.DARK)
                self._ran_out = self._ran_out or told.is_exhausted
            elif self._screen.shows is Screen.DARK:
                self._show(Screen.PLAYING)
            pause = min(pause, told.next_heartbeat_seconds)
        self._next_beat_at = self._clock.now() + timedelta(seconds=pause)

    def _send(self, device: Device) -> Told | None:
        """Sends a beat and books it; None when it failed."""
        is_paused = self._screen.shows is Screen.PAUSED
        body = {
            "profile_id": str(self._profile_id),
            "title_id": str(self._title.id),
            "device_id": device.device_id,
            "device_type": device.device_type,
            "is_paused": is_paused,
        }
        if device.session_id is not None:
            body["session_id"] = str(device.session_id)
        try:
            reply = device.line.call("POST", "viewing-time/heartbeat", body)
            told = self._read(reply)
        except GivenUpError:
            return None
        self.beats += 1
        if told.session_id is not None:
            self._seen[told.session_id] = None
        sent = Sent(self._title, device.device_id, device.session_id, is_paused)
        if complaint := self._reckoning.beat(sent, told, reply.at, reply.unheard_since):
            self._surprises.note(complaint, is_fault=True)
        return told

    def _read(self, reply: Reply) -> Told:
        body = reply.body
        try:
            session_id = body["session_id"]
            return Told(
                session_id=None if session_id is None else UUID(session_id),
                enforcement=str(body["enforcement"]),
                reason=body["reason"],
                is_educational=bool(body["is_educational"]),
                next_heartbeat_seconds=max(1.0, float(body["next_heartbeat_seconds"])),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise self._unreadable("a beat") from error

    def _unreadable(self, what: str) -> GivenUpError:
        complaint = f"the answer to {what} is not what the contract says"
        self._surprises.note(complaint, is_fault=True)
        return GivenUpError(complaint)

    def _end(self, session_id: UUID, line: Line) -> float | None:
        """Ends a session; answers the seconds the service counted, None when it failed."""
        try:
            reply = line.call("POST", "viewing-time/session/{id}/end", of=session_id)
            total = float(reply.body["total_seconds"])
        except GivenUpError:
            return None
        except (KeyError, TypeError, ValueError):
            self._unreadable("an end")
            return None
        self._reckoning.end(session_id, reply.at, reply.unheard_since)
        return total

    # What was counted

    def watched(self) -> Watched:
        """What it was, and what the service counted: asks for that, once nobody plays any more."""
        try:
            return self._watched()
        finally:
            self._hang_up()

    def _hang_up(self) -> None:
        for device in self._all_devices:
            device.line.close()

    def _watched(self) -> Watched:
        has_left = self._ending == LEFT
        still_open = self._device.session_id if has_left else None
        # To end a session again changes nothing and answers its total.
        totals = {
            session_id: None
            if session_id == still_open
            else self._end(session_id, self._device.line)
            for session_id in self._seen
        }
        # Afterwards: a run that was cut short may have left a crashed player's session open.
        balance = self._balance() if self.member.is_kids else None
        known = [total for total in totals.values() if total is not None]
        if still_open is not None and balance is not None and len(known) == len(totals) - 1:
            # To end this one would count on: what it has is what the others leave of the day.
            totals[still_open] = balance - sum(known)
        return Watched(
            family=self.family,
            who=self.member.name,
            ending="ran out" if self._ran_out else self._ending,
            beats=self.beats,
            on_screen=self._screen.playing.total_seconds(),
            paused=self._screen.paused.total_seconds(),
            balance=balance,
            balance_leeway=self._reckoning.balance_leeway.total_seconds(),
            sessions=tuple(
                SessionCount(
                    rules=self._reckoning.total(session_id).total_seconds(),
                    service=total,
                    leeway=self._reckoning.leeway(session_id).total_seconds(),
                )
                for session_id, total in totals.items()
            ),
        )

    def _balance(self) -> float | None:
        """The day's counted and exempt time, in seconds; None when it cannot be read."""
        try:
            reply = self._device.line.call("GET", "viewing-time/balance/{id}", of=self._profile_id)
            minutes = float(reply.body["used_minutes"]) + float(reply.body["educational_minutes"])
        except GivenUpError:
            return None
        except (KeyError, TypeError, ValueError):
            self._unreadable("a question for the balance")
            return None
        return minutes * 60
