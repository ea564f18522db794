"""How far two clocks may lie apart."""

from parentalcontrols.doctor import Finding, ok, problem, warning

#: Seconds: what is worth mending, and what makes tokens run out early or beats end sessions.
_NOTICEABLE, _HARMFUL = 1.0, 5.0


def judged_skew(seconds: float, uncertain: float, whose: str) -> Finding:
    """What a difference means that was measured within `uncertain` seconds."""
    apart = max(0.0, abs(seconds) - uncertain / 2)
    told = f"{whose} is {abs(seconds):.3f} s {'ahead' if seconds > 0 else 'behind'}"
    advice = "Let NTP (chrony, systemd-timesyncd) keep the clocks of all hosts."
    if apart > _HARMFUL:
        return problem(told, advice)
    if apart > _NOTICEABLE:
        return warning(told, advice)
    return ok(told)
