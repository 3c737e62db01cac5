"""Everyday, shop, British and American names of colours, garments, people and carried things.

Each line holds plain words and other names for the same thing. A model reads a name that it does
not know as the first plain word that it knows. A name in two lines belongs to the first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from finegrain.data.lexicon import COLORS, OTHER_THINGS, SAID_OF_THINGS, THINGS

_NAMES = """
# colours
black: jet, jet black, jet-black, pitch black, pitch-black, ebony, onyx, raven, coal, inky, blackish
grey, gray: charcoal, slate, ash, ashen, silver, silvery, graphite, pewter, gunmetal, heather,
    greyish, grayish, smoke, smoky, dove, anthracite, steel, stone-grey, marl
white: ivory, snow, snowy, snow-white, snow white, off-white, off white, pearl, pearly, alabaster,
    whitish, milky, optic white, chalk, ecru
beige, brown, white: cream, creamy, khaki, tan, camel, sand, sandy, oatmeal, fawn, buff, nude,
    biscuit, stone, taupe, champagne, ecru, off-beige, vanilla
brown, beige: chocolate, coffee, mocha, chestnut, hazel, umber, sepia, cocoa, espresso, walnut,
    mahogany, caramel, cinnamon, tawny, bronze, brownish, toffee, cognac, sienna
red: burgundy, maroon, crimson, scarlet, ruby, cherry, wine, claret, vermilion, cardinal, brick,
    brick-red, blood-red, oxblood, bordeaux, reddish, garnet, carmine, rust, rusty, raspberry
orange: tangerine, apricot, pumpkin, amber, coral, terracotta, burnt-orange, copper, carrot, peach,
    orangey, hi-vis orange
yellow: mustard, gold, golden, lemon, canary, saffron, sunflower, ochre, primrose, yellowish,
    hi-vis, high-vis, fluorescent, honey, buttercup, banana
green: olive, mint, emerald, sage, lime, jade, moss, forest, bottle-green, bottle green, pine,
    greenish, kelly, pistachio, army green, avocado, hunter, chartreuse, fern
blue: navy, navy-blue, turquoise, teal, azure, cobalt, sapphire, cyan, aqua, indigo, sky-blue,
    royal, cerulean, denim-blue, bluish, powder-blue, baby-blue, aquamarine, ultramarine, petrol
purple: violet, lavender, lilac, plum, mauve, aubergine, eggplant, magenta, amethyst, mulberry,
    purplish, grape, orchid, heliotrope
pink: fuchsia, magenta, rose, rosy, salmon, blush, hot-pink, hot pink, bubblegum, pinkish, coral,
    candy, flamingo, cerise
blond, blonde, yellow: flaxen, fair-haired, platinum
ginger, red: auburn, redheaded, redhead
colored, coloured: colourful, colorful

# patterns and materials
striped, stripy: stripey, stripes, pinstriped, pinstripe, candy-striped, banded, breton, hooped
checked, checkered, plaid: chequered, tartan, gingham, lumberjack, houndstooth, check, madras,
    windowpane, argyle, flannel
dotted, spotted, polka-dot: polka dot, polka dots, spotty, polka-dotted, dots, spots
floral: flowery, flowered, flower-print, flower-patterned, blossom, botanical, ditsy
plain: solid, solid-colour, solid-color, block-colour, unpatterned, monochrome
leather: pleather, leatherette, faux-leather, suede
knitted, knit, woolly: woollen, woolen, wool, crocheted, cable-knit, chunky-knit, cashmere, merino
long-sleeved: long-sleeve, long sleeved, long sleeve, long sleeves, full-sleeved, full sleeve
short-sleeved: short-sleeve, short sleeved, short sleeve, short sleeves, half-sleeved
sleeveless: strappy, spaghetti-strap
open: unbuttoned, unzipped, undone
hooded: hood
short: mini, cropped
knee-length: midi, calf-length, mid-length
long: maxi, floor-length, full-length, ankle-length
tied: pulled-back

# people
woman, lady, female, girl: lass, lassie, gal, women, ladies, females, girls, dame, madam, mrs, miss,
    mum, mom, mother, wife, grandmother, granny, schoolgirl, businesswoman, chick, damsel, ma'am
man, guy, male, gentleman, boy: bloke, lad, chap, dude, fella, fellow, gent, men, guys, gentlemen,
    males, boys, mister, sir, dad, father, husband, grandfather, grandad, schoolboy, businessman,
    geezer, laddie
person, pedestrian, someone, individual: somebody, anyone, anybody, people, human, passer-by,
    passerby, walker, individuals, figure, suspect, customer, stranger, kid, child, teenager,
    teen, youngster, adult, subject, commuter, shopper, tourist, folk
she: her, hers
he: him, his

# outerwear
coat, overcoat, jacket: trench coat, trenchcoat, trench, topcoat, greatcoat, duffle coat,
    duffel coat, duffle, duffel, pea coat, peacoat, raincoat, mac, macintosh, mackintosh, winter
    coat, fur coat, frock coat, duster, ulster, poncho, cape, cloak, car coat, camel coat, long coat
jacket, coat: bomber, bomber jacket, windbreaker, windcheater, blazer, parka, anorak, puffer, puffa,
    puffer jacket, puffer coat, down jacket, denim jacket, jean jacket, leather jacket, biker
    jacket, blouson, cagoule, kagool, rain jacket, fleece, gilet, body warmer, bodywarmer, waxed
    jacket, softshell, shell jacket, ski jacket, varsity jacket, letterman jacket, track jacket,
    suit jacket, sports coat, sport coat, sports jacket, tuxedo, dinner jacket, harrington
vest, waistcoat: gilet, bodywarmer, tank top, tabard

# knitwear and sweatshirts
hoodie, hooded sweatshirt, sweatshirt, sweater: hoody, hooded top, hooded jumper, hooded sweater,
    zip hoodie, hoodies
sweater, jumper, pullover, knit, sweatshirt, cardigan, hoodie: jersey, turtleneck, polo neck,
    polo-neck, roll neck, rollneck, crewneck, crew neck, knitwear, guernsey, cardie, cardy, cardi,
    fleece top, sloppy joe, twinset, half-zip, quarter-zip

# shirts and tops
t-shirt, tee, tee shirt, shirt: tshirt, t shirt, teeshirt, tee-shirt, crew tee, jersey top, sports
    top, football shirt, graphic tee, tank top, tank, singlet, camisole, cami, crop top, muscle tee
shirt, blouse, t-shirt: button-down, button down, button-up, button up, buttondown, oxford, dress
    shirt, flannel shirt, polo, polo shirt, tunic, work shirt, smock, henley, rugby shirt, hawaiian
    shirt, smart shirt, office shirt, business shirt
shirt, t-shirt, upper: top, tops

# dresses, skirts, suits
dress, gown: frock, sundress, maxi dress, midi dress, mini dress, minidress, evening dress, ball
    gown, ballgown, pinafore, shift dress, tea dress, cocktail dress, party dress, slip dress,
    summer dress, kaftan, caftan, jumper dress, robe, sari, kimono
skirt: miniskirt, mini skirt, mini-skirt, kilt, maxi skirt, pencil skirt, midi skirt, tutu, sarong,
    pleated skirt, a-line skirt, culottes
suit: two-piece, three-piece, trouser suit, pantsuit, business suit, tracksuit, dinner suit
jumpsuit, overalls, dungarees, playsuit, romper: boilersuit, boiler suit, onesie, coveralls

# legwear
jeans, denim, trousers, pants: denims, dungarees, blue jeans, skinny jeans, bootcuts, levis, levi's,
    jeggings, skinnies
trousers, pants, slacks: chinos, sweatpants, joggers, jogging bottoms, tracksuit bottoms, track
    pants, cords, corduroys, cargos, cargo pants, cargo trousers, dress pants, suit trousers,
    breeches, khakis, yoga pants, leggings, bottoms, flares, culottes, britches, strides, trackies,
    drainpipes, pantaloons, sweats, trews
shorts, short pants: bermudas, bermuda shorts, cut-offs, cutoffs, hot pants, hotpants, board shorts,
    boardshorts, cargo shorts, denim shorts, cycling shorts
leggings, tights: treggings, stockings, hose, pantyhose, hosiery, yoga pants

# shoes
sneakers, trainers, running shoes, sports shoes, shoes: plimsolls, gym shoes, tennis shoes, kicks,
    runners, pumps, high-tops, high tops, canvas shoes, daps, sandshoes, sneaker, trainer, athletic
    shoes, gutties, basketball shoes
boots: wellies, wellingtons, wellington boots, gumboots, ankle boots, chelsea boots, bootees,
    booties, doc martens, hiking boots, work boots, cowboy boots, riding boots, rain boots
sandals, shoes: flip-flops, flip flops, flipflops, thongs, sliders, slides, crocs, jandals, mules,
    espadrilles
shoes, heels: loafers, brogues, oxfords, moccasins, derbies, footwear, slip-ons, slippers, ballet
    flats, flats, stilettos, high heels, court shoes, lace-ups, clogs, dress shoes, wedges

# carried things
backpack, rucksack: knapsack, haversack, back pack, ruck sack, school bag, schoolbag, daypack,
    bookbag, book bag, daysack, satchel
handbag, purse, hand bag, bag: tote, tote bag, clutch, clutch bag, pocketbook, shopper bag,
    shopping bag, carrier bag, holdall, duffel bag, gym bag
shoulder bag, crossbody bag, messenger bag, bag: satchel, sling bag, courier bag, cross-body bag,
    cross body bag, record bag, man bag, manbag, laptop bag, briefcase, bum bag, bumbag, fanny pack
suitcase, bag: luggage, trolley case, valise
umbrella: brolly, parasol, gamp, sunshade, bumbershoot

# hats, hair, other
cap, baseball cap, hat: ballcap, ball cap, snapback, trucker hat, trucker cap, peaked cap, flat cap,
    visor, newsboy cap
beanie, woolly hat, knit hat, hat: toque, tuque, bobble hat, watch cap, skullcap, skull cap,
    wool hat, wooly hat, knitted hat, winter hat, stocking cap
hat, cap, brimmed hat: fedora, bowler, panama, trilby, sunhat, sun hat, cowboy hat, stetson, bonnet,
    beret, boater, straw hat, bucket hat, headgear, headwear, helmet
bun: topknot, top knot, chignon, updo
ponytail: pony tail, pony-tail
hair: locks, tresses, mane
glasses: specs, spectacles, eyeglasses
sunglasses: shades, sunnies
scarf: muffler, shawl, pashmina
gloves: mittens, mitts
belt: sash, waistband

# what people do
wearing, in, dressed: sporting, donning, rocking, clothed, attired, garbed, wears, wear, wore
carrying, holding, with: toting, bearing, lugging, hauling, carries, carry, holds, hold, clutching,
    gripping
walking: strolling, ambling, marching, wandering, pacing, sauntering, walks, walk
standing: stood, waiting, stands, loitering, stand
under, with: beneath, underneath, below
behind, back: rear, backwards
"""


def _entries() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each name with the plain words to read it as."""
    text = "\n".join(line for line in _NAMES.splitlines() if not line.startswith("#"))
    for line in text.replace("\n    ", " ").split("\n"):
        if line:
            plain, names = (part.split(",") for part in line.split(":"))
            options = tuple(word.strip() for word in plain)
            yield from ((name.strip(), options) for name in (*names, *plain))
    for kind in (COLORS, *SAID_OF_THINGS.values(), *THINGS.values(), OTHER_THINGS):
        for family in kind.values():
            yield from ((name, family) for name in family)


def _first_of_each() -> dict[str, tuple[str, ...]]:
    options: dict[str, tuple[str, ...]] = {}
    for name, plain in _entries():
        options.setdefault(name, plain)
    return options


READ_AS: Mapping[str, tuple[str, ...]] = _first_of_each()
"""For each name of one to three words, plain words in the order of preference."""

_IGNORED = """
a an the this that these those is are was were be been am and or but of on at in with to from by for
near who whose which what where as it its there here show me find look looking please photo picture
image photograph i we you they their them some any one has have had having do does did very quite
really his her him she he my your our can could will would all just then than so if into onto over
out up down off about also too not no without while when
"""
IGNORED = frozenset(_IGNORED.split())
"""Words that tell little about a picture, so that it does not matter whether a model knows them."""


def with_articles(text: str) -> str:
    """A text with "an" before vowels, and "a" before other letters.

    >>> with_articles("a umbrella and an red coat")
    'an umbrella and a red coat'
    """
    text = re.sub(r"\b([Aa]) (?=[aeio]|u[lmnp](?!i))", r"\1n ", text)
    return re.sub(r"\b([Aa])n (?=[^\Waeiou]|u(?![lmnp])|uni)", r"\1 ", text)
