"""The pose of a standing or walking body: the joints of arms and legs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from finegrain.synthetic.person import Person
from finegrain.synthetic.shapes import Points, points
from finegrain.synthetic.view import View

SIDES = (1, -1)
"""Left and right of the person: the sign of the x axis."""

_THIGH = 0.235
_SHANK = 0.240
_ANKLE = 0.045
_UPPER_ARM = 0.165
_FOREARM = 0.145


@dataclass(frozen=True, slots=True)
class Pose:
    """Joints in body units, each pair as (left, right).

    Attributes:
        arms: Shoulder, elbow, wrist, [3, 3].
        hands: Fingertips, [3].
        legs: Hip, knee, ankle, [3, 3].
        feet: Heel and toe, [2, 3].
        stride: Distance of a foot in front of or behind the hips.
    """

    arms: tuple[Points, Points]
    hands: tuple[Points, Points]
    legs: tuple[Points, Points]
    feet: tuple[Points, Points]
    stride: float


def pose(person: Person, view: View) -> Pose:
    """Joints of a person in a view."""
    legs, feet = [], []
    for side in SIDES:
        leg, foot = _leg(person, view, side)
        legs.append(leg)
        feet.append(foot)
    lowest = min(float(foot[:, 1].min()) for foot in feet)
    drop = points((0.0, lowest, 0.0))
    legs = [leg - drop for leg in legs]
    feet = [foot - drop for foot in feet]
    arms, hands = [], []
    for side in SIDES:
        arm, hand = _arm(person, view, side)
        arms.append(arm)
        hands.append(hand)
    stride = max(abs(float(leg[2, 2])) for leg in legs)
    return Pose(
        arms=(arms[0], arms[1]),
        hands=(hands[0], hands[1]),
        legs=(legs[0], legs[1]),
        feet=(feet[0], feet[1]),
        stride=stride,
    )


def _leg(person: Person, view: View, side: int) -> tuple[Points, Points]:
    phase = view.phase + (0.0 if side > 0 else math.pi)
    if view.walking:
        thigh = math.radians(3.0 + 20.0 * math.sin(phase))
        swing = max(0.0, math.cos(phase + 0.55))
        knee = math.radians(5.0 + 42.0 * swing**1.6)
    else:
        thigh = math.radians(2.0 + 2.5 * math.sin(phase))
        knee = math.radians(3.0)
    spread = (0.052 if person.gender == "man" else 0.047) * person.build
    apart = 0.010 if not view.walking else -0.004
    shank = knee - thigh
    hip = points((side * spread, 0.515, 0.0))[0]
    middle = (
        hip + points((side * apart * 0.5, -_THIGH * math.cos(thigh), _THIGH * math.sin(thigh)))[0]
    )
    ankle = (
        middle
        + points((side * apart * 0.5, -_SHANK * math.cos(shank), -_SHANK * math.sin(shank)))[0]
    )
    tip = max(0.0, shank - 0.12) * 0.75 - max(0.0, thigh - knee - 0.15) * 0.6
    turn_out = 0.22 * side
    reach = points((0.130 * turn_out, -0.130 * math.sin(tip), 0.130 * math.cos(tip)))[0]
    heel = ankle + points((0.0, -_ANKLE * math.cos(tip) + 0.012, -0.030))[0]
    return np.stack([hip, middle, ankle]), np.stack([heel, heel + reach])


def _arm(person: Person, view: View, side: int) -> tuple[Points, Points]:
    broad = (0.106 if person.gender == "man" else 0.090) * person.build
    shoulder = points((side * broad, 0.778, 0.0))[0]
    if person.umbrella_color is not None and side == -1:
        elbow = shoulder + points((side * 0.020, -0.150, 0.055))[0]
        wrist = elbow + points((-side * 0.050, 0.085, 0.095))[0]
        return np.stack([shoulder, elbow, wrist]), wrist + points((-side * 0.01, 0.03, 0.01))[0]
    phase = view.phase + (math.pi if side > 0 else 0.0)
    carries = person.bag == "handbag" and side == 1
    reach = 22.0 if view.walking else 2.0
    upper = math.radians((0.3 if carries else 1.0) * reach * math.sin(phase) - 3.0)
    bend = math.radians(12.0 + (14.0 * max(0.0, math.sin(phase)) if view.walking else 0.0))
    if not view.walking and not carries and math.sin(3.0 * view.phase) > 0.72 and side == 1:
        upper, bend = math.radians(14.0), math.radians(98.0)
    out = 0.024 if person.gender == "man" else 0.018
    elbow = (
        shoulder
        + points((side * out, -_UPPER_ARM * math.cos(upper), _UPPER_ARM * math.sin(upper)))[0]
    )
    lower = upper + bend
    step = points((side * 0.010, -math.cos(lower), math.sin(lower)))[0]
    wrist = elbow + step * _FOREARM
    return np.stack([shoulder, elbow, wrist]), wrist + step * 0.060
