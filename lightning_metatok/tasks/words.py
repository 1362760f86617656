"""Real words for the `text` rendering: categories, which name lists, and their items.

40 categories of 20 items. Every item is one lowercase word that stands nowhere else, so that a word belongs to one
category and an item is told from every other by its spelling alone.
"""

CATEGORIES: dict[str, tuple[str, ...]] = {
    name: tuple(items.split())
    for name, items in {
        "Fruits": "orange peach banana plum apple pear kiwi grape lemon fig mango cherry melon papaya apricot lime "
        "quince guava lychee raspberry",
        "Tools": "hammer wrench level pliers saw drill file clamp chisel screwdriver axe shovel rake ladder sander "
        "crowbar trowel vise mallet nail",
        "Animals": "horse tiger rabbit elephant wolf bear fox giraffe camel donkey goat sheep lion monkey zebra otter "
        "badger squirrel kangaroo leopard",
        "Birds": "eagle sparrow owl parrot pigeon swan robin heron falcon crow magpie pelican flamingo woodpecker "
        "ostrich penguin stork lark finch raven",
        "Fishes": "salmon trout tuna herring cod shark carp eel sardine haddock mackerel halibut anchovy catfish "
        "sturgeon barracuda flounder minnow piranha swordfish",
        "Insects": "ant bee wasp beetle butterfly moth mosquito cricket grasshopper dragonfly ladybird termite flea "
        "locust hornet cockroach cicada earwig firefly mantis",
        "Trees": "oak birch maple pine willow elm cedar spruce beech larch poplar ash hazel redwood cypress "
        "eucalyptus chestnut walnut alder baobab",
        "Flowers": "tulip rose daisy lily orchid sunflower daffodil poppy carnation lavender jasmine marigold peony "
        "begonia hyacinth geranium snowdrop dahlia petunia buttercup",
        "Vegetables": "carrot potato onion cabbage spinach broccoli pea bean lettuce celery turnip radish pumpkin "
        "cucumber leek aubergine asparagus artichoke beetroot kale",
        "Spices": "pepper cinnamon ginger nutmeg saffron turmeric cumin paprika vanilla thyme oregano basil rosemary "
        "parsley cardamom coriander fennel mustard clove sage",
        "Drinks": "water coffee tea milk juice wine beer cider lemonade cocoa brandy whisky vodka gin rum cocktail "
        "soda champagne tequila smoothie",
        "Foods": "bread cheese soup rice pasta butter pizza sandwich omelette stew pancake sausage bacon salad noodle "
        "yoghurt honey pie biscuit porridge",
        "Clothes": "shirt coat hat scarf glove sock shoe skirt dress jacket trousers sweater belt boot tie waistcoat "
        "apron sandal pyjamas cardigan",
        "Colours": "red green blue yellow purple black white brown grey pink violet crimson turquoise beige maroon "
        "indigo magenta cyan scarlet ochre",
        "Fabrics": "cotton silk wool linen velvet denim leather lace satin nylon felt tweed cashmere corduroy flannel "
        "muslin polyester canvas gauze chiffon",
        "Metals": "iron copper silver gold tin lead zinc nickel aluminium steel bronze brass titanium platinum "
        "chromium cobalt tungsten mercury lithium magnesium",
        "Gems": "diamond ruby emerald sapphire opal pearl amethyst topaz garnet jade amber agate onyx quartz jasper "
        "zircon moonstone aquamarine lapis beryl",
        "Instruments": "violin piano guitar flute drum trumpet cello harp clarinet oboe trombone tuba banjo accordion "
        "organ saxophone xylophone mandolin bassoon tambourine",
        "Dances": "waltz tango polka salsa rumba foxtrot ballet flamenco samba jive quickstep minuet mazurka bolero "
        "mambo swing disco reel hornpipe limbo",
        "Sports": "tennis football golf hockey rugby boxing swimming cycling skiing fencing rowing archery judo "
        "basketball volleyball badminton wrestling sailing climbing surfing",
        "Vehicles": "car bus train tram lorry van bicycle motorcycle taxi tractor ambulance scooter sledge wagon "
        "helicopter aeroplane rocket balloon truck caravan",
        "Boats": "ship canoe ferry yacht raft kayak submarine barge dinghy gondola schooner frigate tanker trawler "
        "catamaran galleon tugboat punt steamer lifeboat",
        "Jobs": "teacher doctor baker farmer carpenter plumber nurse lawyer painter tailor butcher sailor miner "
        "librarian electrician gardener pilot dentist cook judge",
        "Buildings": "house church school hospital castle tower factory barn museum palace library theatre temple "
        "warehouse hotel cottage lighthouse windmill stadium monastery",
        "Rooms": "kitchen bathroom bedroom cellar attic hall study pantry nursery lounge office garage balcony "
        "corridor laundry porch conservatory workshop lobby dungeon",
        "Furnishings": "table chair bed sofa shelf desk wardrobe cupboard stool bench lamp mirror carpet curtain "
        "drawer cabinet couch bookcase armchair cradle",
        "Containers": "box bottle bucket basket jar barrel bag crate sack tub vase chest envelope purse suitcase jug "
        "can flask tray carton",
        "Utensils": "spoon fork knife plate bowl cup saucer pan pot kettle ladle whisk spatula grater sieve teapot "
        "mug tongs corkscrew colander",
        "Organs": "heart lung liver kidney brain stomach skin eye ear nose tongue spleen bladder pancreas muscle "
        "bone nerve artery vein throat",
        "Relatives": "mother father sister brother aunt uncle cousin nephew niece grandfather grandmother daughter son "
        "wife husband twin stepson grandson widow orphan",
        "Landforms": "mountain valley river island desert lake hill forest beach canyon cave cliff glacier volcano "
        "peninsula swamp plateau waterfall meadow dune",
        "Weathers": "rain snow wind fog storm hail thunder lightning frost drizzle sleet mist breeze hurricane "
        "blizzard tornado drought sunshine cloud rainbow",
        "Shapes": "circle square triangle rectangle oval cube sphere cone cylinder pyramid hexagon pentagon octagon "
        "rhombus ellipse spiral crescent prism trapezium star",
        "Subjects": "history geography physics chemistry biology mathematics music literature philosophy economics "
        "astronomy geology psychology sociology botany zoology grammar algebra geometry law",
        "Toys": "doll kite puzzle marble puppet yoyo rattle teddy domino dice frisbee trampoline slide seesaw jigsaw "
        "pinwheel skateboard dollhouse plasticine boomerang",
        "Feelings": "joy anger fear sadness pride envy shame hope grief love hate surprise disgust boredom guilt "
        "trust relief worry delight regret",
        "Weapons": "sword spear bow arrow dagger cannon rifle pistol shield lance club catapult crossbow bayonet "
        "musket grenade torpedo halberd sabre whip",
        "Rocks": "granite limestone sandstone slate basalt chalk clay flint pumice gneiss schist shale obsidian "
        "travertine dolomite gypsum gravel coal lava boulder",
        "Currencies": "dollar euro pound yen franc peso rupee krone ruble florin shilling penny cent dinar lira "
        "guilder ducat shekel zloty forint",
        "Documents": "letter novel poem diary newspaper magazine dictionary passport receipt contract map menu "
        "recipe essay report leaflet calendar ticket certificate postcard",
    }.items()
}
