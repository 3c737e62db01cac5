"""The grammar of captions: order, omissions and words."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from finegrain.synthetic import phrases
from finegrain.synthetic.person import Person
from finegrain.synthetic.view import View

GLIMPSES = 0.25
"""Share of captions that name one or two things only, like search queries."""

COLORLESS = 0.1
"""Share of captions without colours; many people describe clothes without their colour."""

_COLORS = re.compile(r"(\{\w+_color\} and )?\{\w+_color\} ")


class Writer:
    """The style of one writer."""

    def __init__(self, person: Person, view: View, rng: random.Random, must: Sequence[str]) -> None:
        self._person = person
        self._view = view
        self._rng = rng
        self._must = must
        self._poss = phrases.POSSESSIVE[person.gender]
        # Some people write little, most write a sentence, and a few describe everything.
        self._effort = rng.choices((0.25, 0.6, 1.0), (0.25, 0.55, 0.20))[0]
        self._hair_told = False

    def compose(self) -> str:
        """A caption with slots such as ``{upper_color}`` for colour words."""
        order = self._rng.random()
        if self._rng.random() < GLIMPSES:
            text = self._glimpse()
        elif order < 0.05:
            text = self._report()
        elif order < 0.26:
            text = self._fragment()
        elif order < 0.48:
            text = self._statement()
        elif order < 0.62:
            text = self._sentences()
        elif order < 0.74:
            text = self._clothes_first()
        elif order < 0.87:
            text = self._action_first()
        else:
            text = self._listing()
        if not self._must and self._rng.random() < COLORLESS:
            text = _COLORS.sub("", text)
        return text[0].upper() + text[1:] if self._rng.random() < 0.85 else text

    # What is mentioned

    def _wants(self, slot: str, odds: float) -> bool:
        return slot in self._must or self._rng.random() < odds * (0.35 + 0.65 * self._effort)

    def _any(self, options: Sequence[str]) -> str:
        return self._rng.choice(options)

    def _worn(self) -> list[str]:
        """Noun phrases of clothes, upper garment first."""
        person = self._person
        clothes = [self._upper()]
        if person.lower is not None and self._wants("lower", 0.96):
            clothes.append(self._lower())
        if self._view.shows_shoes and self._wants("shoes", 0.5):
            clothes.append(self._plural("shoes", person.shoes))
        if person.hat is not None and self._wants("hat", 0.75):
            clothes.append(f"a {{hat_color}} {self._any(phrases.GARMENT[person.hat])}")
        return clothes

    def _held(self) -> list[str]:
        """Participle phrases about carried things."""
        person = self._person
        carried = []
        if person.bag is not None and self._wants("bag", 0.8):
            noun = f"a {{bag_color}} {self._any(phrases.GARMENT[person.bag])}"
            hold = self._any(phrases.HOLD_BAG[person.bag])
            carried.append(hold.format(np=noun, poss=self._poss))
        if person.umbrella_color is not None and self._wants("umbrella", 0.9):
            bare = "{umbrella_color} umbrella"
            hold = self._any(phrases.HOLD_UMBRELLA)
            carried.append(hold.format(np=f"a {bare}", bare=bare))
        return carried

    def _upper(self) -> str:
        person = self._person
        noun = self._any(phrases.GARMENT[person.upper])
        extra = []
        if person.upper == "dress" and self._rng.random() < 0.35:
            extra.append(self._any(phrases.LENGTH["dress"][person.hem]))
        can_vary = person.upper in ("t-shirt", "shirt", "dress")
        if can_vary and self._rng.random() < 0.35:
            extra.append(f"{person.sleeves}-sleeved")
        phrase = self._colored("upper", noun, person.upper_pattern, extra)
        if person.upper_open and self._view.facing == "front" and self._rng.random() < 0.35:
            return phrase.replace("a ", "an open ", 1)
        if person.belt and self._rng.random() < 0.4:
            return f"{phrase} with a belt"
        return phrase

    def _lower(self) -> str:
        person = self._person
        assert person.lower is not None
        assert person.lower_pattern is not None
        noun = self._any(phrases.GARMENT[person.lower])
        options = phrases.LENGTH[person.lower].get(person.hem, ())
        extra = [self._any(options)] if options and self._rng.random() < 0.25 else []
        phrase = self._colored("lower", noun, person.lower_pattern, extra)
        if person.lower == "skirt":
            return phrase
        bare = phrase.removeprefix("a ")
        return f"a pair of {bare}" if self._rng.random() < 0.18 else bare

    def _colored(self, slot: str, noun: str, pattern: str, extra: list[str]) -> str:
        """An article, a colour, a pattern and further adjectives before a noun."""
        color, second = f"{{{slot}_color}}", f"{{{slot}_second_color}}"
        lead = " ".join(extra)
        if pattern == "plain":
            return f"a {lead} {color} {noun}".replace("  ", " ")
        way = self._rng.random()
        name = self._any(phrases.PATTERN[pattern])
        if way < 0.40:
            body = f"{color} and {second} {name} {noun}"
        elif way < 0.60:
            body = f"{color} {name} {noun}"
        elif way < 0.80:
            body = f"{name} {color} {noun}"
        else:
            mark = "stripes" if pattern == "striped" else "checks"
            body = f"{color} {noun} with {second} {mark}"
        return f"a {lead} {body}".replace("  ", " ")

    def _plural(self, slot: str, kind: str) -> str:
        noun = self._any(phrases.GARMENT[kind])
        lead = "a pair of " if self._rng.random() < 0.15 else ""
        return f"{lead}{{{slot}_color}} {noun}"

    def _hair(self) -> str:
        """A noun phrase about the hair."""
        person = self._person
        color = self._any(phrases.HAIR_WORD[person.hair_color])
        if person.hair_style in phrases.TIED and self._rng.random() < 0.8:
            tied = self._any(phrases.TIED[person.hair_style])
            return tied.format(poss=self._poss, hair=color)
        curl = "curly " if person.hair_style == "curly" and self._rng.random() < 0.5 else ""
        return f"{self._any(phrases.HAIR_LENGTH[person.hair_length])} {curl}{color} hair"

    def _sees_hair(self) -> bool:
        # Under a hat the length of hair is uncertain, so it is named once at most.
        known = self._person.hat is None or self._person.hair_length != "short"
        return known and not self._hair_told

    def _subject(self) -> str:
        noun = self._any(phrases.SUBJECT[self._person.gender])
        if self._sees_hair() and " " not in noun and self._rng.random() < 0.12:
            self._hair_told = True
            return f"{self._any(phrases.HAIRED[self._person.hair_color])} {noun}"
        return noun

    def _action(self) -> str:
        table = phrases.WALKING if self._view.walking else phrases.STANDING
        return self._any(table[self._view.facing]).format(poss=self._poss)

    # How it is composed

    def _glimpse(self) -> str:
        """Short captions in the style of "man with a red backpack": only the most visible
        things."""
        person = self._person
        seen = [f"in {self._upper()}", *self._held()]
        if person.lower is not None:
            seen.append(f"in {self._lower()}")
        if self._view.shows_shoes:
            seen.append(f"in {self._plural('shoes', person.shoes)}")
        if person.hat is not None:
            seen.append(f"wearing a {{hat_color}} {self._any(phrases.GARMENT[person.hat])}")
        if self._sees_hair():
            seen.append(f"with {self._hair()}")
        named = self._rng.sample(seen, min(len(seen), self._rng.choice((1, 1, 2))))
        someone = self._any((f"a {self._any(phrases.SUBJECT[person.gender])}",) * 3 + ("a person",))
        return self._any(phrases.GLIMPSE).format(s=f"{someone} {' and '.join(named)}")

    def _tail(self) -> str:
        """Carried things, hair and action, as phrases after a noun."""
        parts = self._held()
        if self._sees_hair() and self._wants("hair", 0.5):
            parts.insert(0, f"with {self._hair()}")
        if self._wants("action", 0.4):
            parts.append(self._action())
        self._rng.shuffle(parts)
        return "".join(f", {part}" if i else f" {part}" for i, part in enumerate(parts))

    def _fragment(self) -> str:
        """ "woman in a red coat and black trousers carrying a handbag"."""
        article = "a " if self._rng.random() < 0.45 else ""
        worn, subject = _join(self._worn()), self._subject()
        if not article and self._rng.random() < 0.5:
            worn = worn.removeprefix("a ")
        verb = self._any(("in", "in", "wearing", "dressed in"))
        stop = "." if self._rng.random() < 0.4 else ""
        return f"{article}{subject} {verb} {worn}{self._tail()}{stop}"

    def _statement(self) -> str:
        """ "The man is wearing a blue jacket, grey trousers and white trainers."."""
        opening = self._any(
            (
                "The {s} is wearing",
                "The {s} wears",
                "A {s} is wearing",
                "A {s} wears",
                "This {s} has on",
                "There is a {s} wearing",
                "This is a {s} in",
                "The {s} is dressed in",
                "In the picture a {s} is wearing",
                "A pedestrian, a {s}, wears",
            )
        )
        return f"{opening.format(s=self._subject())} {_join(self._worn())}{self._tail()}."

    def _sentences(self) -> str:
        """Two to four short sentences."""
        person = self._person
        she = phrases.PRONOUN[person.gender]
        worn = self._worn()
        subject = self._subject()
        if self._sees_hair() and self._wants("hair", 0.6):
            hair = self._hair()
            lines = [f"the {subject} has {hair}", f"{she} is wearing {_join(worn)}"]
        else:
            verb = self._any((" is", ""))
            lines = [f"a {subject}{verb} {self._action()}", f"{she} wears {_join(worn)}"]
        for held in self._held():
            if held.startswith(("with", "under")):
                lines.append(f"{she} is seen {held}")
            else:
                lines.append(f"{she} is {held}")
        return _sentences(lines)

    def _report(self) -> str:
        """One sentence for each visible thing."""
        person = self._person
        she = phrases.PRONOUN[person.gender]
        self._effort = 1.0
        lines = [f"the picture shows a {self._subject()} who is {self._action()}"]
        if self._sees_hair():
            lines.append(f"{self._poss} hair is {self._any(phrases.HAIR_WORD[person.hair_color])}")
            lines[-1] += f" and {self._any(phrases.HAIR_LENGTH[person.hair_length])}"
        upper, *others = self._worn()
        lines.append(f"{she} wears {upper} on the upper part of the body")
        if others:
            lines.append(
                f"{self._any(('together with it', 'besides'))} {she} has {_join(others)} on"
            )
        lines += [f"{she} can be seen {held}" for held in self._held()]
        return _sentences(lines)

    def _clothes_first(self) -> str:
        """ "Wearing a red coat and black boots, the woman is walking away."."""
        worn = _join(self._worn())
        opening = self._any(("wearing", "dressed in", "in", "clad in"))
        doing, with_what = _parted([*self._held(), self._action()])
        who = f"{self._any(('the', 'this', 'a'))} {self._subject()}"
        return f"{opening} {worn}, {who} is {' '.join([_join(doing), *with_what])}."

    def _action_first(self) -> str:
        """ "Walking away from the camera, a man in a green hoodie ..."."""
        worn = _join(self._worn())
        verb = self._any(("wears", "is wearing", "has on"))
        action = self._action()
        return f"{action}, {self._any(('a', 'the', 'this'))} {self._subject()} {verb} {worn}" + (
            f"{_commas(self._held())}."
        )

    def _listing(self) -> str:
        """ "Red coat, black trousers and white sneakers on a woman with long hair"."""
        worn = [re.sub("^(an? )(pair of )?", "", item) for item in self._worn()]
        who = f"a {self._subject()}"
        style = self._any(("on", "worn by", ":"))
        if style == ":":
            return f"{who}: {', '.join([*worn, *self._held(), self._action()])}"
        return f"{_join(worn)} {style} {who}{self._tail()}"


def _join(items: Sequence[str]) -> str:
    """ "a, b and c"."""
    if len(items) == 1:
        return items[0]
    return f"{', '.join(items[:-1])} and {items[-1]}"


def _sentences(lines: Sequence[str]) -> str:
    return ". ".join(line[0].upper() + line[1:] for line in lines) + "."


def _commas(items: Sequence[str]) -> str:
    return "".join(f", {item}" for item in items)


def _parted(items: Sequence[str]) -> tuple[list[str], list[str]]:
    """Participle phrases, and the "with ..." and "under ..." phrases after them."""
    followers = [item for item in items if item.startswith(("with ", "under "))]
    return [item for item in items if item not in followers], followers
