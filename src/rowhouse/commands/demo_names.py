"""The words of the demo: invented companies and people in many scripts, and what is sold to them.

Every name is made up. A name stands with its ASCII form ("München:muenchen") where addresses are made of it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Word:
    """A name in its own script, and the ASCII form used in web and mail addresses."""

    text: str
    ascii: str


@dataclass(frozen=True, slots=True)
class Locale:
    """Where companies and people come from.

    branch: how a company's office in a city is called.  roots: companies, each with its industry after a slash.
    """

    country: str
    currency: str
    dial: str
    branch: str
    units: tuple[str, ...]
    cities: tuple[Word, ...]
    given: tuple[Word, ...]
    family: tuple[Word, ...]
    roots: tuple[tuple[Word, str], ...]


def _words(text: str) -> tuple[Word, ...]:
    """Return "text:ascii" items; an underscore stands for a blank, and the ASCII form may be left out where it is the same."""
    return tuple(_word(item) for item in text.split())


def _word(item: str) -> Word:
    native, _, plain = item.partition(":")
    return Word(native.replace("_", " "), plain or native.lower().replace("_", "-"))


def _roots(text: str) -> tuple[tuple[Word, str], ...]:
    parts = (item.rpartition("/") for item in text.split())
    return tuple((_word(name), industry.replace("_", " ")) for name, _, industry in parts)


LOCALES: tuple[Locale, ...] = (
    Locale(
        "US",
        "USD",
        "+1 555",
        "{root} {city}",
        ("Distribution", "Field Services", "Labs"),
        _words("Tulsa Duluth Savannah Spokane Toledo Boise Mobile"),
        _words("Avery Marcus Delia Wendell Priya Naomi Curtis Jolene Grant Odessa Elliot Renata"),
        _words("Hargrove Okafor Lindell Brannigan Castellano Whitlock Osei Pruitt Delacroix Yates Moreau Stanhope"),
        _roots(
            "Kestrel_Harbor_Freight/Logistics Brightwater_Mills/Food Copperline_Instruments/Manufacturing "
            "Tallgrass_Energy_Works/Energy "
            "Quillfeather_Media/Media Saltmarsh_Foods/Food Ironwood_Care_Network/Healthcare Palisade_Grid/Energy "
            "Juniper_&_Vale_Outfitters:juniper-vale/Retail Lanternfish_Robotics/Manufacturing "
            "Two_Rivers_Cold_Chain/Logistics "
            "Ordinary_Mutual/Insurance Pinnacle_Sensing:pinnacle-sensing/Technology Watchtower_Telematics/Technology"
        ),
    ),
    Locale(
        "GB",
        "GBP",
        "+44 1632",
        "{root} ({city})",
        ("Depot", "Works", "Trading"),
        _words("Leeds Cardiff Dundee Norwich Swansea"),
        _words("Imogen Callum Rhiannon Alistair Beatrix Tobias Niamh Gareth"),
        _words("Ashdown Pemberley Macrae Thistlewood O’Rourke:orourke Fairclough Llewellyn Hathersage"),
        _roots(
            "Thornbury_&_Sons_Ltd:thornbury/Construction Greyfriars_Maritime/Logistics Pennine_Dairy_Co-operative/Food "
            "Foxglove_Pharma/Healthcare Albion_Switchgear/Manufacturing Larkspur_Hotels/Hospitality"
        ),
    ),
    Locale(
        "DE",
        "EUR",
        "+49 30",
        "{root}, Niederlassung {city}",
        ("Lager", "Werk 2", "Kundendienst"),
        _words("München:muenchen Köln:koeln Nürnberg:nuernberg Lübeck:luebeck Dresden"),
        _words("Jürgen:juergen Annelie Björn:bjoern Käthe:kaethe Friederike Götz:goetz Svenja Matthias"),
        _words(
            "Großkopf:grosskopf Öhlmann:oehlmann Brückner:brueckner Weißhaupt:weisshaupt Tannhäuser:tannhaeuser "
            "Krähwinkel:kraehwinkel"
        ),
        _roots(
            "Müllerhoff_Antriebstechnik_GmbH:muellerhoff/Manufacturing Süderelbe_Spedition:suederelbe/Logistics "
            "Grünfeld_Molkerei:gruenfeld/Food "
            "Rößler_&_Vogt_Optik:roessler-vogt/Technology Bärental_Kliniken:baerental/Healthcare"
        ),
    ),
    Locale(
        "CH",
        "CHF",
        "+41 44",
        "{root} {city}",
        ("Atelier", "Logistik"),
        _words("Zürich:zuerich Genève:geneve Neuchâtel:neuchatel Luzern"),
        _words("Urs Mélanie:melanie Reto Océane:oceane Flurin Noëlle:noelle"),
        _words("Zürcher:zuercher Bünzli:buenzli Aebischer Crêtenoud:cretenoud Rüegsegger:rueegsegger"),
        _roots(
            "Höhenweg_Präzision_AG:hoehenweg/Manufacturing Lac_Bleu_Assurances/Insurance "
            "Gletscherquell_Getränke:gletscherquell/Food"
        ),
    ),
    Locale(
        "FR",
        "EUR",
        "+33 1",
        "{root} – {city}",
        ("Entrepôt", "Atelier"),
        _words("Besançon:besancon Nîmes:nimes Orléans:orleans Saint-Étienne:saint-etienne"),
        _words("Éloïse:eloise François:francois Aurélie:aurelie Loïc:loic Maëlle:maelle Théodore:theodore"),
        _words("Lefèvre:lefevre Châtaigne:chataigne Boisséreau:boissereau d’Aubrac:daubrac Périgault:perigault"),
        _roots(
            "Forêt_Bleue_Énergie:foret-bleue/Energy Boulangeries_Chênevert:chenevert/Food "
            "Mécanique_de_l’Isère:mecanique-isere/Manufacturing"
        ),
    ),
    Locale(
        "ES",
        "EUR",
        "+34 91",
        "{root} {city}",
        ("Almacén", "Taller"),
        _words("Málaga:malaga Córdoba:cordoba Logroño:logrono Cádiz:cadiz"),
        _words("Íñigo:inigo Begoña:begona Ángel:angel Lucía:lucia Joaquín:joaquin"),
        _words("Muñoz:munoz Ibáñez:ibanez Peñalosa:penalosa Echevarría:echevarria Cigüeña:ciguena"),
        _roots(
            "Transportes_Peñón:penon/Logistics Clínicas_Alborada:clinicas-alborada/Healthcare "
            "Vidrios_Montañés:montanes/Manufacturing"
        ),
    ),
    Locale(
        "SE",
        "SEK",
        "+46 8",
        "{root} {city}",
        ("Terminal", "Verkstad"),
        _words("Göteborg:goteborg Malmö:malmo Örebro:orebro Umeå:umea"),
        _words("Åsa:asa Göran:goran Märta:marta Björn:bjorn Linnéa:linnea"),
        _words("Sjöberg:sjoberg Åkerlund:akerlund Nyström:nystrom Hägglöf:hagglof"),
        _roots("Nordvik_Rederi_AB:nordvik/Logistics Skogsån_Papper:skogsan/Manufacturing Fjällmarken_Vind:fjallmarken/Energy"),
    ),
    Locale(
        "PL",
        "EUR",
        "+48 22",
        "{root} {city}",
        ("Magazyn", "Serwis"),
        _words("Łódź:lodz Gdańsk:gdansk Wrocław:wroclaw Rzeszów:rzeszow"),
        _words("Zofia Łukasz:lukasz Małgorzata:malgorzata Wojciech Świętosława:swietoslawa"),
        _words("Wiśniewska:wisniewska Żółkiewski:zolkiewski Brzęczek:brzeczek Dąbrowicz:dabrowicz"),
        _roots("Żuraw_Budowa:zuraw/Construction Młyny_Świętokrzyskie:mlyny/Food Iskra_Śląska:iskra-slaska/Energy"),
    ),
    Locale(
        "GR",
        "EUR",
        "+30 21",
        "{root} {city}",
        ("Αποθήκη", "Συνεργείο"),
        _words("Πάτρα:patra Βόλος:volos Ηράκλειο:irakleio"),
        _words("Ελένη:eleni Γιώργος:giorgos Δέσποινα:despoina Θανάσης:thanasis Ζωή:zoi"),
        _words("Παπαδήμος:papadimos Ξενάκης:xenakis Καραλή:karali Βλαχογιάννη:vlachogianni"),
        _roots(
            "Αιγαίο_Μεταφορές:aigaio/Logistics Ελαιώνες_Ρίζας:rizas/Food Ήλιος_Ενέργεια:ilios/Energy "
            "Μαρμάρινο_Κατασκευές:marmarino/Construction"
        ),
    ),
    Locale(
        "BG",
        "EUR",
        "+359 2",
        "{root} – {city}",
        ("Склад", "Сервиз"),
        _words("Пловдив:plovdiv Варна:varna Русе:ruse"),
        _words("Надежда:nadezhda Борис:boris Людмила:lyudmila Стоян:stoyan Ярослав:yaroslav Оксана:oksana"),
        _words("Каменова:kamenova Дубравин:dubravin Шевчук:shevchuk Златарев:zlatarev Журавльова:zhuravlova"),
        _roots(
            "Бяла_Чайка_Логистика:byala-chayka/Logistics Тракийски_мелници:trakiyski/Food "
            "Вертикаль_Инструмент:vertikal/Manufacturing "
            "Сонячний_Лан:sonyachnyi-lan/Energy Клініка_Каштан:kashtan/Healthcare Родопа_Строй:rodopa/Construction"
        ),
    ),
    Locale(
        "JP",
        "JPY",
        "+81 3",
        "{root} {city}支店",
        ("倉庫", "サービスセンター"),
        _words("大阪:osaka 札幌:sapporo 福岡:fukuoka 仙台:sendai"),
        _words("陽子:yoko 健太:kenta さくら:sakura 直樹:naoki 美咲:misaki ハルト:haruto"),
        _words("高梨:takanashi 小鳥遊:kotori 渡瀬:watase 橘:tachibana 五十嵐:igarashi"),
        _roots(
            "山吹精機株式会社:yamabuki-seiki/Manufacturing 青葉物流株式会社:aoba-butsuryu/Logistics "
            "みなと屋食品:minatoya/Food "
            "ほしぞら医療センター:hoshizora/Healthcare カワセミ電子:kawasemi/Technology "
            "北斗エナジー:hokuto-enaji/Energy 松風ホテル:matsukaze/Hospitality"
        ),
    ),
    Locale(
        "CN",
        "USD",
        "+86 21",
        "{root}{city}分公司",
        ("仓库", "服务中心"),
        _words("苏州:suzhou 成都:chengdu 青岛:qingdao 厦门:xiamen"),
        _words("晓明:xiaoming 丽华:lihua 志强:zhiqiang 雨桐:yutong 建国:jianguo"),
        _words("欧阳:ouyang 林:lin 赵:zhao 司徒:situ 郑:zheng"),
        _roots(
            "云帆国际货运有限公司:yunfan/Logistics 金穗粮油集团:jinsui/Food 星河仪器有限公司:xinghe/Manufacturing "
            "碧泉能源:biquan/Energy 长青医院管理:changqing/Healthcare 青瓷智能科技:qingci/Technology"
        ),
    ),
    Locale(
        "KR",
        "KRW",
        "+82 2",
        "{root} {city}지점",
        ("물류센터", "서비스센터"),
        _words("부산:busan 대구:daegu 인천:incheon"),
        _words("지우:jiwoo 민준:minjun 서연:seoyeon 하은:haeun 도윤:doyun"),
        _words("남궁:namgung 강:kang 윤:yoon 황보:hwangbo 임:lim"),
        _roots(
            "한빛나루물류:hanbitnaru/Logistics 새벽들식품:saebyeokdeul/Food 푸른솔에너지:pureunsol/Energy "
            "가온누리정밀:gaonnuri/Manufacturing 다솜병원:dasom/Healthcare"
        ),
    ),
    Locale(
        "KW",
        "KWD",
        "+965 2",
        "{root} - فرع {city}",
        ("المستودع", "مركز الصيانة"),
        _words("الجهراء:jahra حولي:hawalli دبي:dubai مسقط:muscat"),
        _words("ليلى:layla يوسف:yusuf نورة:noura عمر:omar هند:hind"),
        _words("الشهابي:alshihabi القاسمي:alqasimi الحداد:alhaddad النجار:alnajjar"),
        _roots(
            "النورس_للشحن:alnawras/Logistics واحة_الطاقة:wahat-altaqa/Energy مخابز_السنبلة:alsunbula/Food "
            "بوابة_الصحراء_للإنشاءات:bawaba/Construction"
        ),
    ),
    Locale(
        "IL",
        "USD",
        "+972 3",
        "{root} סניף {city}",
        ("מחסן", "מרכז שירות"),
        _words("חיפה:haifa באר_שבע:beer-sheva נתניה:netanya"),
        _words("נועה:noa איתן:eitan תמר:tamar אורי:uri"),
        _words("אלמוג:almog ברקאי:barkai שחרית:shaharit לבנון:levanon"),
        _roots("גלי_הנגב_אנרגיה:galei-hanegev/Energy מאפיית_החיטה:hachita/Food רקפת_מערכות:rakefet/Technology"),
    ),
    Locale(
        "IN",
        "USD",
        "+91 22",
        "{root} {city} शाखा",
        ("गोदाम", "सेवा केंद्र"),
        _words("पुणे:pune नागपुर:nagpur इंदौर:indore"),
        _words("अदिति:aditi विक्रम:vikram मीरा:meera अर्जुन:arjun काव्या:kavya"),
        _words("देशपांडे:deshpande चतुर्वेदी:chaturvedi राठौड़:rathod कुलकर्णी:kulkarni"),
        _roots(
            "नीलकमल_परिवहन:nilkamal-parivahan/Logistics सूर्यधारा_ऊर्जा:suryadhara/Energy "
            "अन्नपात्र_खाद्य:annapatra/Food शिल्पयंत्र_उद्योग:shilpayantra/Manufacturing"
        ),
    ),
    Locale(
        "TH",
        "USD",
        "+66 2",
        "{root} สาขา{city}",
        ("คลังสินค้า", "ศูนย์บริการ"),
        _words("เชียงใหม่:chiangmai ภูเก็ต:phuket ขอนแก่น:khonkaen"),
        _words("สมหญิง:somying ธนากร:thanakorn กมลวรรณ:kamonwan ปกรณ์:pakorn"),
        _words("ศรีสุวรรณชัย:srisuwanchai วงศ์ทองคำ:wongthongkham แสงจันทร์เพ็ญ:saengchan"),
        _roots("ดอกแก้วขนส่ง:dokkaew/Logistics ข้าวทองอาหาร:khaothong/Food ตะวันฉายพลังงาน:tawanchai/Energy"),
    ),
)

# Companies of these names are no customers.
COMPETITORS = ("Pinnacle Sensing", "Watchtower Telematics", "青瓷智能科技")
PARTNERS = ("Copperline Instruments", "Lanternfish Robotics", "カワセミ電子", "Höhenweg Präzision AG")


@dataclass(frozen=True, slots=True)
class Product:
    """Something that is sold. price_usd: of one piece, or of one period.  recurrence: as a line of a deal has it."""

    code: str
    name: str
    price_usd: int
    recurrence: str = "ONE_TIME"
    typical_quantity: int = 1


PRODUCTS: tuple[Product, ...] = (
    Product("SEN-100", "Temperature sensor", 85, typical_quantity=60),
    Product("SEN-220", "Vibration sensor", 140, typical_quantity=40),
    Product("SEN-300", "Door and dock sensor", 60, typical_quantity=35),
    Product("GTW-10", "Site gateway", 690, typical_quantity=4),
    Product("GTW-50", "Rugged gateway", 1_450, typical_quantity=3),
    Product("TRK-7", "Vehicle tracker", 210, typical_quantity=30),
    Product("PLT-S", "Monitoring platform, Standard", 390, "MONTHLY"),
    Product("PLT-P", "Monitoring platform, Professional", 1_150, "MONTHLY"),
    Product("PLT-Y", "Fleet platform, yearly plan", 7_800, "YEARLY"),
    Product("SRV-IN", "Installation day", 950, typical_quantity=5),
    Product("SRV-TR", "Training day", 1_200, typical_quantity=2),
    Product("SRV-SL", "Priority support", 480, "QUARTERLY"),
)
