"""Words that are so frequent in a language that an index leaves them out.

They are articles, pronouns, prepositions, conjunctions and auxiliary verbs, and what an elision leaves of them, such as
the `l` of `l'eau`. Each list is written as its language is; the analyser folds it as it folds a text.
"""

# ruff: noqa: RUF001 - letters of other scripts are meant

from __future__ import annotations

_ENGLISH = (
    "a an and are as at be but by for if in into is it no not of on or s such t that the their then there these they "
    "this to was will with"
)
_DUTCH = (
    "de het een t n s ik jij je u hij zij ze wij we jullie mij me jou hem haar ons hen hun zich men mijn jouw uw "
    "zijn onze dit dat deze die wie wat welke waar hoe wanneer in op van voor met aan bij uit over naar om tot door "
    "onder tegen tussen zonder sinds te ter ten en of maar want als dan omdat terwijl toen ook nog niet er is ben "
    "bent was waren wordt worden werd werden geworden heeft heb hebt hebben had hadden kan kunnen zal zullen zou "
    "zouden"
)
BY_LANGUAGE = {
    "arabic": (
        "و في من على إلى عن مع منذ حتى عند بين قبل بعد غير أنا أنت أنتم نحن هو هي هم هن هذا هذه ذلك تلك هؤلاء الذي "
        "التي الذين ما أي كل أن إن أنه أنها إنه إنها أو ثم بل لكن إذا لو كما حيث إلا أما قد لقد سوف كان كانت كانوا "
        "يكون تكون ليس ليست لم لن لا له لها لهم به بها فيه فيها منه منها عليه عليها إليه إليها هنا هناك يا"
    ),
    "armenian": (
        "և ու եւ կամ բայց իսկ սակայն թե եթե որ երբ որտեղ որպես նաև էլ քան ես դու նա մենք դուք նրանք իմ քո նրա մեր "
        "ձեր նրանց իր իրենց այս այդ այն որը որի որոնք ով ինչ համար հետ մեջ վրա մասին ըստ դեպի մինչև մի եմ է ենք եք "
        "են էի էիր էր էինք էիք էին ոչ չի չեն"
    ),
    "basque": (
        "eta edo ala baina ez bai ere baita baino bezala baldin beraz nahiz bat batzuk hau hori hura hauek horiek "
        "haiek ni zu gu zuek bera nire zure gure bere haren honen horren nor zer zein non noiz nola zergatik arte "
        "gabe artean buruz gainera hemen han naiz zara da gara zarete dira zen ziren den diren dela direla dago "
        "daude dut duzu du dugu dute zuen zuten dio die izan izango"
    ),
    "catalan": (
        "el la els les l un una uns unes de d del dels a al als en n amb per pel pels sense sobre entre fins des i o "
        "però ni si que qui què com quan on perquè doncs jo tu ell ella nosaltres vosaltres ells elles em m et t es "
        "s se ens us ho hi li meu meva teu teva seu seva seus seves nostre nostra vostre vostra aquest aquesta "
        "aquests aquestes aquell aquella aquells aquelles això allò és són era eren ser estar està estan he ha hem "
        "han havia no també ja més"
    ),
    "czech": (
        "já ty on ona ono my vy oni mě mi tě ho mu ji jí nás nám vás vám jich jim se si můj tvůj jeho její náš váš "
        "jejich svůj ten ta to ti tento tato toto tyto toho tomu tom tím této tohoto kdo co který která které kteří "
        "kde kdy jak v ve k ke s z ze na do od po pro při za před pod nad mezi bez o u a i ale nebo ani že aby když "
        "protože než jestli proto však jsem jsi je jsme jste jsou byl byla bylo byli byly být bude budou by bych ne "
        "není také jen už tak"
    ),
    "danish": (
        "en et den det de jeg du han hun vi mig dig ham hende os jer dem sig man min mit mine din dit dine sin sit "
        "sine hans hendes vor vores deres denne dette disse hvem hvad hvor hvornår hvordan hvorfor hvilken som der i "
        "på af for til fra med om ved hos over under mellem efter før uden mod gennem ad og eller men at hvis fordi "
        "da når end så er var være været bliver blev blive har havde have kan kunne skal skulle vil ville må ikke "
        "også"
    ),
    "dutch": _DUTCH,
    "dutch_porter": _DUTCH,
    "english": _ENGLISH,
    "esperanto": (
        "la l mi vi li ŝi ĝi ni ili oni si min vin lin ŝin ĝin nin ilin sin mia via lia ŝia ĝia nia ilia sia tiu tio "
        "tiuj ĉi kiu kio kiuj kie kiam kiel kial de da al el en por pro kun sen sur sub super inter antaŭ post ĉe "
        "per pri dum ĝis kaj aŭ sed ke se ĉar nek ol ĉu do esti estas estis estos estus ne ankaŭ nur pli plej"
    ),
    "estonian": (
        "ma sa ta me te nad mina sina tema meie teie nemad mu su minu sinu oma see need selle seda nende neid kes "
        "mis mida kus kuhu millal kuidas miks ja ning või ega aga kuid et kui nagu sest vaid olen oled on oleme "
        "olete oli olid ole olla pole ei mitte ka ju siis koos ilma järgi kohta üle alla peale enne pärast vastu "
        "juures"
    ),
    "finnish": (
        "minä sinä hän me te he minun sinun hänen meidän teidän heidän minua sinua häntä tämä tuo se nämä nuo ne "
        "tämän tuon sen niiden tätä sitä niitä joka jotka jonka jota mikä mitä kuka missä milloin miten ja tai vai "
        "mutta että jos kun kuin koska vaikka eli sekä olen olet on olemme olette ovat olin oli olivat olla ollut en "
        "et ei emme ette eivät myös niin kanssa ilman ennen jälkeen"
    ),
    "french": (
        "le la les l un une des du de d au aux je j tu il elle on nous vous ils elles me m te t se s lui leur leurs "
        "y en mon ma mes ton ta tes son sa ses notre nos votre vos ce c cet cette ces ceci cela ça qui que qu quoi "
        "dont où à dans par pour sur avec sans sous entre vers chez et ou mais donc ni car si comme quand lorsque "
        "lorsqu puisque puisqu quoique quoiqu jusque jusqu suis es est sommes êtes sont était étaient être sera ai "
        "as a avons avez ont avait avaient avoir ne n pas aussi"
    ),
    "german": (
        "der die das den dem des ein eine einer eines einem einen ich du er sie es wir ihr mich dich ihn uns euch "
        "mir dir ihm ihnen sich man mein dein sein unser euer meine seine ihre dieser diese dieses diesem diesen wer "
        "was wo wann wie in im an am auf aus bei beim mit nach von vom vor zu zum zur für durch gegen ohne um über "
        "unter zwischen bis seit und oder aber denn dass wenn weil als ob sondern ist sind war waren bin bist seid "
        "wird werden wurde wurden worden hat haben habe hast hatte hatten nicht auch nur noch so"
    ),
    "greek": (
        "ο η το οι τα του της των τον την τους τις ένας μία μια ένα ενός εγώ εσύ εμείς εσείς αυτός αυτή αυτό αυτοί "
        "αυτές αυτά μου σου μας σας που ποιος ποια ποιο τι πού πότε πώς να θα δεν μην ας και κι ή αλλά ότι πως αν "
        "όταν γιατί όπως ούτε είτε σε στο στη στην στον στα στους στις από απ για γι με μ προς κατά μετά χωρίς μέχρι "
        "ως παρά είμαι είσαι είναι είμαστε ήταν έχω έχει έχουν είχε"
    ),
    "hindi": (
        "का के की को में से पर ने तक और या लेकिन कि यदि अगर तो मैं हम तू तुम आप यह वह ये वे इस उस इन उन इसे उसे मेरा "
        "मेरी मेरे हमारा हमारी हमारे आपका आपकी आपके इसका इसकी इसके उसका उसकी उसके अपना अपनी अपने जो जिस जिन कौन क्या "
        "कब कहाँ कहां कैसे क्यों हूँ हूं हो है हैं था थी थे होता होती होते रहा रही रहे नहीं न भी ही लिए साथ"
    ),
    "hungarian": (
        "a az egy én te ő mi ti ők engem téged őt minket titeket őket nekem neked neki nekünk nekik ez ezek azok ezt "
        "azt ennek annak aki akik ami amely amelyek ki hol mikor hogyan miért és s vagy de hanem hogy ha mert mint "
        "bár van vannak volt voltak lesz lenni legyen vagyok nem ne is sem már még csak alatt felett mellett előtt "
        "után között szerint nélkül"
    ),
    "indonesian": (
        "yang dan di ke dari untuk dengan pada oleh dalam antara tentang tanpa sejak hingga sampai atau tetapi tapi "
        "namun karena jika kalau bahwa agar supaya ketika sambil maka serta saya aku kamu anda dia ia kami kita "
        "mereka ini itu apa siapa mana kapan bagaimana mengapa adalah ialah akan telah sudah sedang masih bisa tidak "
        "bukan jangan belum juga pun hanya para si sang sebuah seorang"
    ),
    "irish": (
        "an na mé tú sé sí muid sinn sibh siad é í iad mo do a ár bhur m d b seo sin siúd i in sa san ar ag le leis "
        "de ó go faoi idir roimh gan chun um thar agus is nó ach má dá nuair mar ní níl tá bhí bhfuil bíonn raibh "
        "bheith beidh ba nach nár gur cé cad conas agam agat aige aici againn agaibh acu air orm ort"
    ),
    "italian": (
        "il lo la l i gli le un uno una di d a ad da in con su per tra fra del dello della dell dei degli delle al "
        "allo alla all ai agli alle dal dallo dalla dall dai dagli dalle nel nello nella nell nei negli nelle sul "
        "sullo sulla sull sui sugli sulle io tu lui lei noi voi loro mi m ti t si s ci c vi v ne n mio mia tuo tua "
        "suo sua suoi sue nostro nostra questo questa quest questi queste quello quella quell che ch chi cui dove "
        "quando come e ed o ma se né è sono era erano essere ho ha hanno non anche"
    ),
    "lithuanian": (
        "aš tu jis ji mes jūs jie jos mano tavo jo mūsų jūsų jų savo jį ją jam jai jiems tai šis ši šie šios šį šią "
        "tas ta tie tos tą to tų tuo kas kuris kuri kurie kurios kur kada kaip kodėl ir ar bet o arba nei kad jei "
        "jeigu nes kai nors į iš su be nuo prie per po prieš už apie iki pagal tarp ant dėl esu esi yra esame esate "
        "buvo bus būti ne nėra taip pat jau dar tik"
    ),
    "nepali": (
        "र वा तर कि यदि भने अनि को का की ले लाई मा बाट देखि सम्म सँग द्वारा लागि म हामी तिमी तपाईं ऊ उनी यो त्यो यी "
        "ती यस त्यस मेरो हाम्रो तिम्रो उसको उनको यसको त्यसको आफ्नो जो जुन के कसरी कहाँ कहिले किन हो हुन् छ छन् थियो "
        "थिए हुन्छ भयो छैन होइन न पनि नै त"
    ),
    "norwegian": (
        "en ei et den det de jeg du han hun vi dere meg deg ham henne oss dem seg man min mitt mine din ditt dine "
        "sin sitt sine hans hennes vår vårt våre deres denne dette disse som hvem hva hvor når hvordan hvorfor "
        "hvilken i på av for til fra med om ved hos over under mellom etter før uten mot gjennom og eller men at "
        "hvis fordi da enn så er var være vært blir ble bli har hadde ha kan kunne skal skulle vil ville må ikke "
        "også eg dei ein eit ikkje kva kven korleis frå vere"
    ),
    "persian": (
        "و در به از که را با برای تا بر بین بدون درباره یا اما ولی اگر هم نیز چون زیرا پس من تو او ما شما آنها آنان "
        "ایشان این آن همین همان چنین خود چه کجا چرا چگونه هر یک ها های می نمی است هست هستند بود بودند شد شده شود "
        "باشد باید دارد دارند داشت نه"
    ),
    "polish": (
        "ja ty on ona ono my wy oni one mnie mi ciebie ci jego jej mu go ją nas nam was wam ich im nim nich się "
        "sobie mój moja moje twój nasz wasz swój ten ta to te tego tej temu tym tych który która które którzy kto co "
        "gdzie kiedy jak czy w we z ze na do od po o u przy za przed pod nad między bez dla przez i a oraz lub albo "
        "ale lecz że żeby aby jeśli jeżeli gdy bo ponieważ niż więc jestem jesteś jest są był była było byli były "
        "być będzie będą by nie też także tylko już"
    ),
    "porter": _ENGLISH,
    "portuguese": (
        "o a os as um uma uns umas de d do da dos das em no na nos nas num numa ao à aos às por pelo pela pelos "
        "pelas para com sem sob sobre entre até desde eu tu ele ela nós eles elas você vocês me te se lhe lhes meu "
        "minha teu tua seu sua seus suas nosso nossa este esta estes estas esse essa esses essas isso isto aquele "
        "aquela aquilo que quem qual quais onde quando como e ou mas nem porque pois é são era eram foi foram ser "
        "está estão estava estar tem têm tinha ter há não já também"
    ),
    "romanian": (
        "un o unei unui unor al a ai ale lui eu tu el ea noi voi ei ele mă m te se s îl l îi i le ne vă v își îşi "
        "meu mea tău ta său sa nostru acest această acești aceşti aceste acel acea acei acele care ce cine unde când "
        "cum de la în într din dintr pe cu pentru prin până fără sub după între spre despre peste și şi sau dar ci "
        "că să dacă deci nici sunt este e era erau fi fost am are avem aveți aveţi au va vor nu n mai doar"
    ),
    "russian": (
        "я ты он она оно мы вы они меня тебя его её ее нас вас их мне тебе ему ей нам вам им ним ней них себя себе "
        "мой твой наш ваш свой этот эта это эти этого этой этом этих тот та то те того той том тех кто что чего чем "
        "который которая которое которые где когда как в во на с со к ко от до из у о об по за для при про без под "
        "над перед между через и а но или да чтобы если ли же хотя был была было были быть есть будет будут не ни бы "
        "тоже также уже ещё еще лишь только"
    ),
    "serbian": (
        "ja ti on ona ono mi vi oni mene me njega ga nas vas njih ih mu joj im se ovaj ova ovo taj ta to koji koja "
        "koje ko šta što gde kada kako u na s sa k od do iz o po za pri bez i a ali ili pa da ako jer nego kao sam "
        "si je smo ste su bio bila bilo bili biti će nije nisu ne li ја ти он она оно ми ви они мене ме њега га нас "
        "вас њих их му јој им се овај ова ово тај та то који која које ко шта што где када како у на с са к од до из "
        "о по за при без и а али или па да ако јер него као сам си је смо сте су био била било били бити ће није "
        "нису не ли"
    ),
    "sesotho": (
        "ke o re le ba e a di li se sa ha ka ho hore la ya tsa wa bo ea oa nna wena yena rona lona empa kapa haeba "
        "ena eo tsena tseo sena seo hona moo tla ne"
    ),
    "spanish": (
        "el la los las lo un una unos unas de del a al en por para con sin sobre entre hasta desde hacia tras ante "
        "contra según yo tú él ella nosotros vosotros ellos ellas usted ustedes me te se le les nos os mí sí mi mis "
        "tu tus su sus nuestro nuestra este esta esto estos estas ese esa eso esos esas aquel aquella aquello que "
        "quien quienes cual cuales cuyo cuya qué quién donde cuando como cómo y e o u ni pero sino aunque porque "
        "pues si es son era eran fue fueron ser sido está están estaba estar he ha han había haber hay no también ya"
    ),
    "swedish": (
        "en ett den det de jag du han hon vi ni mig dig honom henne oss er dem sig man min mitt mina din ditt dina "
        "sin sitt sina hans hennes vår vårt våra deras denna detta dessa som vem vad när hur varför vilken vilket "
        "vilka där i på av för till från med om vid hos över under mellan efter före utan mot genom och eller men "
        "att än eftersom så är var vara varit blir blev bli har hade ha kan kunde ska skall skulle vill inte ej "
        "också"
    ),
    "tamil": (
        "ஒரு இந்த அந்த எந்த நான் நாம் நாங்கள் நீ நீங்கள் அவன் அவள் அவர் அவர்கள் அது இது அவை இவை என் எங்கள் உன் "
        "உங்கள் அதன் இதன் யார் என்ன எங்கே எப்போது எப்படி ஏன் மற்றும் அல்லது ஆனால் எனவே என்று என உள்ள இருந்து மீது "
        "பற்றி வரை கொண்டு போல இல்லை உள்ளது ஆகும் தான் கூட"
    ),
    "turkish": (
        "bir ben sen o biz siz onlar beni seni onu bizi sizi onları bana sana ona bize size onlara benim senin onun "
        "bizim sizin onların bu şu bunlar şunlar bunu bunun kim ne nerede nasıl neden niçin hangi ve veya ya da de "
        "ama fakat ancak çünkü ki eğer ile için gibi kadar göre sonra önce mi mı mu mü değil idi ise olan olarak "
        "daha en her"
    ),
    "yiddish": (
        "דער די דאָס דעם אַ א אַן אן איך דו ער זי עס מיר איר זיי מיך דיך אים אונדז זיך מיין דיין זיין אונדזער אייער "
        "ווער וואָס ווו ווען ווי און אָדער אָבער אַז ווייל אויב אין אויף פֿון פון מיט צו ביי פֿאַר פאר נאָך בין ביסט "
        "איז זענען געווען האָב האָט האָבן ניט נישט אויך נאָר"
    ),
}  # fmt: skip


def stop_words(language: str) -> list[str]:
    """Those of a language; none of one that is not known."""
    return BY_LANGUAGE.get(language, "").split()
