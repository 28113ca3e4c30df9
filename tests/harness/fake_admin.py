"""The part of the fake daemon that is about who belongs to the mesh: removal, roles, vaults, quarantine, keys."""

from __future__ import annotations

from typing import Any

from meshd.errors import BadRequest, Denied, Exists, NotFound, WrongPassphrase
from meshd.localapi.errors import with_details
from meshd.localapi.routes import Match

NOW = "2026-11-24T06:41:00Z"
SEALED = '{"MeshdMasterKey":{"V":1}}'


class FakeAdmin:
    """Mixed into `FakeDaemon`, which holds the state."""

    master: str
    devices: list[dict[str, Any]]
    removed: list[str]
    vaults: list[dict[str, Any]]
    exposed: list[dict[str, Any]]
    quarantine: list[dict[str, Any]]
    fell: list[dict[str, Any]]
    lost: list[dict[str, Any]]
    changes: list[dict[str, Any]]
    undone: list[dict[str, Any]]  # removals that would fall
    adds: list[dict[str, Any]]
    left: list[dict[str, Any]]
    pending: list[str]  # names of devices that have not heard
    offline: bool
    wiped: bool
    mesh: bool

    def _device(self, name: str) -> dict[str, Any]:
        raise NotImplementedError

    def _check_master(self, body: Any, *, needed: bool) -> None:
        if needed and "master_passphrase" not in body:
            raise with_details(Denied("that takes the master passphrase"), needs="master_passphrase")
        if self.offline and needed and "master_file" not in body:
            raise Denied("no device holds the sealed master key", hint="give its file with --master-file")
        if body.get("master_passphrase", self.master) != self.master:
            raise WrongPassphrase("the master passphrase is wrong")

    # ---- removal

    def _plan(self, body: Any) -> dict[str, Any]:
        chosen = [self._device(name) for name in body["devices"]]
        return {
            "devices": [
                {"id": one["id"], "name": one["name"], "role": one["role"], "removed": False} for one in chosen
            ],
            "vaults": [_named(vault) for vault in self.vaults],
            "needs_master": "since" in body or any(one["role"] == "admin" for one in chosen),
            "last_admin": False,
            "quarantined": 12 if "since" in body else 0,
            "lost": self.lost,
            "undone": self.undone,
            "adds": self.adds,
            "since": "2026-11-20T00:00:00Z" if "since" in body else None,
            "known_since": "2026-11-22T00:00:00Z",
        }

    def do_plan_removal(self, match: Match, body: Any) -> Any:
        return self._plan(body)

    def do_remove(self, match: Match, body: Any) -> Any:
        plan = self._plan(body)
        self._check_master(body, needed=bool(plan["needs_master"]))
        decided = {*body.get("keep_removed", ()), *body.get("readmit", ())}
        if any(one["id"] not in decided for one in self.undone):
            raise BadRequest("a removal would fall unseen")
        gone = [one["name"] for one in plan["devices"]]
        self.removed += gone
        self.devices = [one for one in self.devices if one["name"] not in gone]
        others = [one for one in self.devices if not one["this"]]
        heard = [one["name"] for one in others if one["name"] not in self.pending]
        return {
            "removed": gone,
            "rotated": len(self.vaults),
            "acknowledged": heard,
            "pending": [one["name"] for one in others if one["name"] in self.pending],
            "exposed": len(self.exposed),
            "unchanged": sum(not item["changed"] for item in self.exposed),
            "devices": [{"id": one["id"], "name": one["name"]} for one in plan["devices"]],
            "vaults": plan["vaults"],
            "left": self.left,
            "others": [
                {
                    "id": one["id"],
                    "name": one["name"],
                    "acknowledged": one["name"] in heard,
                    "connected": one["connected"],
                    "last_seen": one["last_seen"],
                }
                for one in others
            ],
        }

    def do_removals(self, match: Match, body: Any) -> Any:
        about = {"id": "MDGON", "removed": NOW, "acknowledged": ["desktop"], "pending": self.pending}
        return {"removed": [{**about, "name": name} for name in self.removed]}

    def do_exposure(self, match: Match, body: Any) -> Any:
        name = match.params["device"]
        if name not in self.removed:
            self._device(name)
        unchanged = sum(not item["changed"] for item in self.exposed)
        device = {"id": "MDGON", "name": name}
        return {"device": device, "items": self.exposed, "exposed": len(self.exposed), "unchanged": unchanged}

    # ---- roles and rights

    def do_set_role(self, match: Match, body: Any) -> Any:
        found = self._device(match.params["device"])
        self._check_master(body, needed="admin" in (body["role"], found["role"]) and body["role"] != found["role"])
        found["role"] = body["role"]
        grants = [{"vault": "*", "level": "write"}] if body["role"] == "member" else []
        return {"id": found["id"], "name": found["name"], "role": found["role"], "grants": grants, "rotated": []}

    def do_change_rights(self, match: Match, body: Any) -> Any:
        found = self._device(match.params["device"])
        grants = [
            {
                "vault": "v-" + wish.partition(":")[0],
                "level": wish.partition(":")[2],
                "application": "ssh",
                "name": "ssh",
            }
            for wish in body.get("grant", ())
        ]
        rotated = [_named(vault) for vault in self.vaults if vault["application"] in body.get("revoke", ())]
        return {"id": found["id"], "name": found["name"], "role": "member", "grants": grants, "rotated": rotated}

    # ---- vaults

    def do_applications(self, match: Match, body: Any) -> Any:
        return {"applications": [one for one in self.vaults if match.query.get("deleted") or not one["deleted"]]}

    def _vault(self, name: str) -> dict[str, Any]:
        for one in self.vaults:
            if name in (one["id"], one["name"], f"{one['application']}/{one['name']}"):
                return one
        raise NotFound("there is no such vault")

    def do_add_vault(self, match: Match, body: Any) -> Any:
        if any((one["application"], one["name"]) == (body["application"], body["name"]) for one in self.vaults):
            raise Exists("there is such a vault")
        self.vaults.append(vault(body["application"], body["name"]))
        return self.vaults[-1]

    def do_change_vault(self, match: Match, body: Any) -> Any:
        found = self._vault(match.params["vault"])
        found.update(body)
        return found

    def do_delete_vault(self, match: Match, body: Any) -> Any:
        found = self._vault(match.params["vault"])
        found["deleted"] = True
        return found

    def do_rotate(self, match: Match, body: Any) -> Any:
        chosen = [self._vault(body["vault"])] if "vault" in body else self.vaults
        return {"rotated": [_named(one) for one in chosen]}

    # ---- quarantine and undo

    def do_quarantine(self, match: Match, body: Any) -> Any:
        entries = [entry for entry in self.quarantine if match.query.get("all") or not entry["imported"]]
        return {"quarantine": entries, "fell": self.fell}

    def do_confirm_fallen(self, match: Match, body: Any) -> Any:
        confirmed = [one for one in self.fell if one["name"] in body["names"]]
        if not confirmed:
            raise NotFound("Nothing called that fell with an admin.")
        self.fell = [one for one in self.fell if one not in confirmed]
        return {"confirmed": confirmed}

    def _quarantined(self, name: str) -> dict[str, Any]:
        for entry in self.quarantine:
            if name in (entry["id"], entry["item"]):
                return entry
        raise NotFound("there is no such version in quarantine")

    def do_quarantined(self, match: Match, body: Any) -> Any:
        content = {"title": "a", "sites": ["a.example"], "username": "alice", "password": "his", "note": "", "totp": ""}
        found = self._quarantined(match.params["version"])
        return {**found, "content": content, "now": {**content, "password": "mine"}}

    def do_import_quarantine(self, match: Match, body: Any) -> Any:
        chosen = [self._quarantined(name) for name in body.get("ids", ())]
        chosen = chosen or [entry for entry in self.quarantine if entry["device"] == body.get("device")]
        items = [entry for entry in chosen if entry["kind"] == "item"]
        for entry in items:
            entry["imported"] = True
        return {
            "imported": [{"id": entry["id"], "item": entry["item"]} for entry in items],
            "unchanged": 0,
            "rejected": [{"id": entry["id"], "reason": "no item"} for entry in chosen if entry["kind"] != "item"],
        }

    def do_undoables(self, match: Match, body: Any) -> Any:
        return {"undo": self.changes}

    def do_undo(self, match: Match, body: Any) -> Any:
        for change in self.changes:
            if change["id"].startswith(match.params["change"]):
                self._check_master(body, needed=bool(change["needs_master"]))
                return {"undone": change}
        raise NotFound("there is nothing like that to take back")

    # ---- keys

    def do_renew(self, match: Match, body: Any) -> Any:
        self._check_master(body, needed=True)
        return {"device": {"id": "MDLAP", "name": "laptop", "role": "admin"}}

    def do_master_passphrase(self, match: Match, body: Any) -> Any:
        self._check_master(body, needed=True)
        self.master = body["new"]
        return {"state": "online"}

    def do_master_file(self, match: Match, body: Any) -> Any:
        self._check_master(body, needed=False)
        return {"text": SEALED}

    def do_master_offline(self, match: Match, body: Any) -> Any:
        self._check_master(body, needed=False)
        assert body["text"] == SEALED
        if self.offline:
            raise Denied("it is offline already")
        self.offline = True
        return {"state": "offline"}

    def do_master_online(self, match: Match, body: Any) -> Any:
        self._check_master(body, needed=False)
        assert body["text"] == SEALED
        self.offline = False
        return {"state": "online"}

    def do_wipe(self, match: Match, body: Any) -> Any:
        self.wiped, self.mesh = True, False
        return {"wiped": True}


def vault(application: str = "password", name: str = "password", *, items: int = 0) -> dict[str, Any]:
    about = {"id": f"MB-{application}-{name}", "application": application, "name": name, "items": items}
    return {**about, "readable": True, "writable": True, "deleted": False}


def _named(one: dict[str, Any]) -> dict[str, Any]:
    return {name: one[name] for name in ("id", "application", "name")}


def quarantined(name: str = "aaaabbbbcccc", kind: str = "item", **members: Any) -> dict[str, Any]:
    about = {
        "id": name,
        "item": f"vault/{name}",
        "kind": kind,
        "application": "password",
        "title": "a.example" if kind == "item" else "",
        "device": "phone",
        "device_id": "MDPHO",
        "received": NOW,
        "updated": NOW,
        "why": "a removed device wrote it",
        "newest": True,
        "imported": False,
    }
    return about | members


def change(name: str = "ccccddddeeee.MDDES", *, needs_master: bool = False, **members: Any) -> dict[str, Any]:
    about = {"id": name, "time": NOW, "until": "2026-11-25T06:41:00Z", "type": "rights", "by": "laptop"}
    return about | {"text": "desktop became relay (was member)", "needs_master": needs_master} | members
