"""The texts on which a model proves that it can do with 8 bits: languages, lengths, code and numbers."""

# ruff: noqa: RUF001 - letters that look like others belong to languages

TEXTS = (
    "duck",
    "?",
    "42",
    "Hello, world!",
    "The river froze last night.",
    "How do I renew a passport?",
    "cheap flights from Lisbon to Oslo in March",
    "A cat sleeps on the warm roof of a parked car.",
    "The bakery opens at six, but the first bread leaves the oven an hour earlier.",
    "symptoms of vitamin d deficiency",
    "She wrote the letter twice, tore both copies up, and called him instead.",
    "An index trades space for time: it keeps a sorted copy of what is often looked up.",
    "ALL PASSENGERS MUST LEAVE THE TRAIN AT THIS STATION",
    "no no no no no no no no no no no no no no no no",
    "e.g. the 3rd ed. (vol. II), pp. 17-23, cf. ibid.",
    "Water boils at 100 °C at sea level, at about 95 °C in Denver, and near 71 °C on the summit of Everest.",
    "The committee met on 14 May 2019, adjourned at 17:45, and approved 12 of 31 proposals by a vote of 8 to 3.",
    "3.14159 2.71828 1.41421 1.61803 0.57721",
    "+49 30 1234567, order no. A-00991-X, total EUR 1,249.00",
    '192.168.0.1 - - [10/Oct/2023:13:55:36] "GET /index.html HTTP/1.1" 200 2326',
    "https://example.org/shop/items?id=77&lang=pt#reviews",
    "def mean(values):\n    return sum(values) / len(values) if values else None",
    "SELECT author, count(*) AS books FROM library GROUP BY author HAVING count(*) > 3 ORDER BY books DESC;",
    "for (size_t i = 0; i < n; i++) total += weights[i] * x[i];",
    '{"name": "lamp", "price": 19.9, "tags": ["light", "desk"], "stock": null}',
    'git commit -m "fix: close the file before it is renamed" && git push',
    "TypeError: unsupported operand type(s) for +: 'int' and 'str'",
    "<ul><li>Tea</li><li>Coffee</li></ul>",
    "E = mc^2, so a gram of matter holds about 9e13 joules.",
    "The patient, a 54-year-old woman, presented with fever, a dry cough and pain in the chest that grew worse when "
    "she lay down; an electrocardiogram showed widespread elevation, and ultrasound a small effusion.",
    "We show that every planar graph without triangles can be coloured with three colours, give a short proof that "
    "avoids discharging, and describe an algorithm that finds such a colouring in linear time.",
    "The tenant shall give notice in writing no later than three months before the end of the term; failing such "
    "notice, the lease is deemed renewed for one further year under the same conditions.",
    "Whisk the yolks with the sugar until pale, fold in the melted chocolate, then the beaten whites in three parts, "
    "and chill for at least four hours before serving with a spoon of cold cream.",
    "Shares of the shipping company fell by 11 percent after it warned that freight rates had dropped to their lowest "
    "level in six years, and that two new vessels would be delivered later than planned.",
    "The lighthouse keeper counted ships the way other people count sheep. There were fewer each year. In the winter "
    "of the great storm he counted none for nineteen days, and on the twentieth a single sail stood on the horizon, "
    "so far away that he took it for a gull. He lit the lamp at noon. Nobody had ever lit it at noon. By evening the "
    "boat lay broken on the sand, and four men sat at his table, eating soup without a word, while the wind tried "
    "every door and window of the house.",
    "Neural networks that read text cut it into pieces, give each piece a list of numbers, and let these lists "
    "exchange what they know in several rounds. After the last round the lists are averaged, so that a sentence of "
    "any length becomes one point in a space of a few hundred dimensions. Sentences that mean the same lie close to "
    "each other there, whatever words they use, and a search is a question of distance. The rounds cost nearly all "
    "of the time, and most of that is spent on multiplying matrices, which is why the precision of those products "
    "matters so much for speed and, if it is chosen badly, for what is found.",
    "Die Ente schwimmt im Fluss.",
    "Wo kann ich am Sonntag in der Nähe des Bahnhofs frühstücken?",
    "Das Gesetz über die Beförderung gefährlicher Güter wurde zuletzt im vergangenen Herbst geändert.",
    "Le musée est fermé le mardi, sauf pendant les vacances scolaires.",
    "Quelle est la différence entre une crevette et une langoustine ?",
    "¿Dónde está la biblioteca más cercana?",
    "El tren de las ocho llegó con cuarenta minutos de retraso a causa de la nieve.",
    "O gato dorme em cima do telhado quente.",
    "La partita è stata rinviata per la pioggia, e i biglietti restano validi.",
    "De fiets staat al drie weken in de schuur met een lekke band.",
    "Kissa nukkuu lämpimällä katolla, ja lapset leikkivät pihalla.",
    "Książka, którą mi pożyczyłeś, leży na stole w kuchni.",
    "Vlak odjíždí za deset minut z druhého nástupiště.",
    "A könyvtár ma este hétkor zár be.",
    "Yarın hava yağmurlu olacak, şemsiyeni unutma.",
    "Кошка спит на тёплой крыше, а во дворе играют дети.",
    "Як дістатися до вокзалу пішки?",
    "Η θάλασσα ήταν ήρεμη και ο ουρανός χωρίς σύννεφα.",
    "القطة نائمة على السطح الدافئ.",
    "איפה תחנת הרכבת הקרובה?",
    "बिल्ली गर्म छत पर सो रही है।",
    "แมวนอนหลับอยู่บนหลังคา",
    "Con mèo ngủ trên mái nhà ấm áp.",
    "图书馆今天晚上七点关门。",
    "猫が暖かい屋根の上で眠っている。明日は雨が降るそうです。",
    "고양이가 따뜻한 지붕 위에서 자고 있다.",
    "🦆 swims, 🐟 hides, ☀️ sets 🙂",
    "naïve café — “quoted”, ½ price, 5 µm, x ≤ y, α → β …",
)
