"""What a portal says in words, in English, German and French; chosen by the request's `Language` list.

A reason is a name in code and a sentence on the wire. Languages come best first, as ISO codes with or without a region
("en-uk" is what 2016 clients send); the first whose language is here decides, English where none is.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable

DEFAULT = "en"
MAX_LANGUAGES = 16


class Reason(enum.Enum):
    NAME_TAKEN = "name-taken"
    NAME_LENGTH = "name-length"
    NAME_CHARACTERS = "name-characters"
    OTHER_PORTAL = "other-portal"
    CLOSED = "closed"
    INVITE = "invite"
    ACCOUNT_EXISTS = "account-exists"
    MESH_HAS_ACCOUNT = "mesh-has-account"
    NOT_ALLOWED = "not-allowed"
    SIGN_IN = "sign-in"
    SIGNATURE = "signature"
    MALFORMED = "malformed"
    NOT_FOUND = "not-found"
    ESCROW_EXISTS = "escrow-exists"
    STALE = "stale"
    HEAD_MOVED = "head-moved"
    MISSING = "missing"
    TOO_LARGE = "too-large"
    QUOTA = "quota"
    BUSY = "busy"
    BEHIND = "behind"
    FILLING = "filling"
    WAITING = "waiting"
    COMPAT = "compat"
    PAGE_KEY = "page-key"
    SUSPENDED = "suspended"
    INTERNAL = "internal"


_TEXTS: dict[Reason, tuple[str, str, str]] = {
    Reason.NAME_TAKEN: (
        "That name is not available",  # the one text of 2016
        "Dieser Name ist nicht verfügbar",
        "Ce nom n'est pas disponible",
    ),
    Reason.NAME_LENGTH: (
        "A name has 1 to 64 characters",
        "Ein Name hat 1 bis 64 Zeichen",
        "Un nom compte de 1 à 64 caractères",
    ),
    Reason.NAME_CHARACTERS: (
        "The name contains a character that is not allowed",
        "Der Name enthält ein Zeichen, das nicht erlaubt ist",
        "Le nom contient un caractère qui n'est pas autorisé",
    ),
    Reason.OTHER_PORTAL: (
        "That account belongs to another portal",
        "Dieses Konto gehört zu einem anderen Portal",
        "Ce compte relève d'un autre portail",
    ),
    Reason.CLOSED: (
        "This portal opens no new accounts",
        "Dieses Portal eröffnet keine neuen Konten",
        "Ce portail n'ouvre pas de nouveaux comptes",
    ),
    Reason.INVITE: (
        "This portal opens accounts by invitation only",
        "Dieses Portal eröffnet Konten nur auf Einladung",
        "Ce portail n'ouvre de comptes que sur invitation",
    ),
    Reason.ACCOUNT_EXISTS: (
        "There is an account of that name already",
        "Es gibt bereits ein Konto mit diesem Namen",
        "Un compte de ce nom existe déjà",
    ),
    Reason.MESH_HAS_ACCOUNT: (
        "This mesh has an account here already",
        "Dieses Mesh hat hier bereits ein Konto",
        "Ce mesh a déjà un compte ici",
    ),
    Reason.NOT_ALLOWED: (
        "The signer may not do that",
        "Der Unterzeichner darf das nicht",
        "Le signataire n'en a pas le droit",
    ),
    Reason.SIGN_IN: (
        "The request must be signed by a device of the account",
        "Die Anfrage muss von einem Gerät des Kontos unterzeichnet sein",
        "La demande doit être signée par un appareil du compte",
    ),
    Reason.SIGNATURE: (
        "A signature does not verify",
        "Eine Unterschrift ist ungültig",
        "Une signature n'est pas valable",
    ),
    Reason.MALFORMED: (
        "The request can't be read",
        "Die Anfrage ist nicht lesbar",
        "La demande est illisible",
    ),
    Reason.NOT_FOUND: ("Nothing was found", "Es wurde nichts gefunden", "Rien n'a été trouvé"),
    Reason.ESCROW_EXISTS: (
        "There is another escrow entry of that name: they are written once",
        "Es gibt einen anderen Hinterlegungseintrag dieses Namens: Sie werden nur einmal geschrieben",
        "Une autre entrée de séquestre porte ce nom : elles ne s'écrivent qu'une fois",
    ),
    Reason.STALE: (
        "A newer version has replaced this one",
        "Eine neuere Fassung hat diese ersetzt",
        "Une version plus récente a remplacé celle-ci",
    ),
    Reason.HEAD_MOVED: (
        "The entry has changed meanwhile",
        "Der Eintrag hat sich inzwischen geändert",
        "L'entrée a changé entre-temps",
    ),
    Reason.MISSING: (
        "Versions that this one builds on are missing here",
        "Fassungen, auf denen diese aufbaut, fehlen hier",
        "Il manque ici des versions dont celle-ci dépend",
    ),
    Reason.TOO_LARGE: ("The entry is too large", "Der Eintrag ist zu groß", "L'entrée est trop grande"),
    Reason.QUOTA: ("The account is full", "Das Konto ist voll", "Le compte est plein"),
    Reason.BUSY: (
        "Too many requests: try again later",
        "Zu viele Anfragen: später noch einmal versuchen",
        "Trop de demandes : réessayez plus tard",
    ),
    Reason.FILLING: (
        "This mirror does not hold the whole log yet; come again later",
        "Dieser Spiegel hat noch nicht das ganze Protokoll; bitte später wiederkommen",
        "Ce miroir ne contient pas encore tout le journal ; revenez plus tard",
    ),
    Reason.BEHIND: (
        "This portal was restored from an old copy and takes nothing new until its operator has decided how to go on",
        "Dieses Portal stammt aus einer alten Kopie und nimmt nichts an, bis sein Betreiber entschieden hat",
        "Ce portail a été restauré d'une ancienne copie et n'accepte rien tant que son exploitant n'a pas décidé",
    ),
    Reason.WAITING: (
        "Too many devices wait for an answer",
        "Zu viele Geräte warten auf eine Antwort",
        "Trop d'appareils attendent une réponse",
    ),
    Reason.COMPAT: (
        "This portal does not serve clients of 2016",
        "Dieses Portal bedient keine Programme von 2016",
        "Ce portail ne sert pas les clients de 2016",
    ),
    Reason.PAGE_KEY: (
        "The PageKey is not one of this portal",
        "Der PageKey stammt nicht von diesem Portal",
        "Le PageKey n'est pas de ce portail",
    ),
    Reason.SUSPENDED: ("The account is suspended", "Das Konto ist gesperrt", "Le compte est suspendu"),
    Reason.INTERNAL: (
        "The portal has failed: try again later",
        "Das Portal hat versagt: später noch einmal versuchen",
        "Le portail a échoué : réessayez plus tard",
    ),
}
_COLUMNS = {"en": 0, "de": 1, "fr": 2}
LANGUAGES = tuple(_COLUMNS)


def choose(languages: Iterable[str] | None) -> str:
    """The language to answer in: the first of the wishes that is here."""
    for count, wish in enumerate(languages or ()):
        primary = wish.replace("_", "-").partition("-")[0].strip().lower()
        if primary in _COLUMNS:
            return primary
        if count + 1 >= MAX_LANGUAGES:
            break
    return DEFAULT


def text(reason: Reason, languages: Iterable[str] | None = None) -> str:
    """The sentence for a reason in the best language."""
    return _TEXTS[reason][_COLUMNS[choose(languages)]]
