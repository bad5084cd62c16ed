"""The story, step by step: who asks for what, what the answer must be, and what it means.

What the ledger must hold in the end follows from the answers (`tally`), not from anything written here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from headgate.demo import payments
from headgate.demo.calls import FORMATS, PROCESS, SUMMARISE, Answer, Asked, ask
from headgate.demo.documents import SAMPLES, sample
from headgate.demo.play import Play, asked_micros
from headgate.demo.tally import offer, settlement

MINUTES: Final = ask(PROCESS, sample("minutes.docx"))
AGREEMENT: Final = ask(PROCESS, sample("services_agreement.txt"))
AGREEMENT_SUMMARY: Final = ask(SUMMARISE, sample("services_agreement.txt"))
BINARY: Final = Asked("POST", PROCESS, "binary.txt", "text/plain", bytes(64))
PDF: Final = Asked("POST", PROCESS, "scan.pdf", "application/pdf", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n")
_LANGUAGES: Final = {"en": "English", "de": "German", "fr": "French"}


class Story:
    """The fourteen steps; the agent's first payment is remembered, because it is sent again."""

    def __init__(self, play: Play) -> None:
        self.play = play
        self._payment = ""
        self._paid: Answer | None = None

    def steps(self) -> tuple[Callable[[], Awaitable[None]], ...]:
        """In order."""
        return (
            self.free,
            self.inside_the_plan,
            self.summaries,
            self.over_the_plan,
            self.nothing_included,
            self.not_billed,
            self.the_offer,
            self.paid,
            self.paid_again,
            self.paid_elsewhere,
            self.another_purchase,
            self.work_that_failed,
            self.bad_payments,
            self.revoked,
        )

    async def free(self) -> None:
        """A route that is declared free."""
        self.play.teller.step(1, "Somebody without a key asks which formats are read.")
        await self.play.nobody(Asked("GET", FORMATS), 200)
        self.play.teller.moral("A free route: Headgate stands aside.")

    async def inside_the_plan(self) -> None:
        """Seven documents of a customer whose plan includes twenty."""
        play = self.play
        play.teller.step(2, "Ada of northwind (plan Team, 2 seats) sends seven documents.")
        answers = await play.customer(play.stage.ada, [ask(PROCESS, one) for one in SAMPLES], 200)
        words, languages = _read(answers)
        play.teller.moral(
            f"Real work: {words:,} words, in {languages}. Inside the plan nothing is charged, and "
            "what Ada gets is, byte for byte, the application's own answer."
        )

    async def summaries(self) -> None:
        """Another action of the same plan."""
        play = self.play
        play.teller.step(3, "She asks for two summaries.")
        wanted = [AGREEMENT_SUMMARY, ask(SUMMARISE, sample("release_notes.txt"))]
        await play.customer(play.stage.ada, wanted, 200)

    async def over_the_plan(self) -> None:
        """Five documents where three are included."""
        play = self.play
        play.teller.step(4, "contoso (plan Starter, 3 documents included) sends five.")
        await play.customer(play.stage.contoso, [ask(PROCESS, one) for one in SAMPLES[:5]], 200)
        play.teller.moral("Over the plan, and served all the same: two go to the bill, at 0.10 each.")

    async def nothing_included(self) -> None:
        """An action that the plan does not include at all."""
        play = self.play
        play.teller.step(5, "contoso asks for a summary; its plan includes none.")
        await play.customer(play.stage.contoso, [ask(SUMMARISE, sample("readme.md"))], 200)

    async def not_billed(self) -> None:
        """Documents that the application refuses."""
        play = self.play
        play.teller.step(6, "contoso sends what cannot be read.")
        await play.customer(play.stage.contoso, [PDF], 415)
        await play.customer(play.stage.contoso, [BINARY], 422)
        play.teller.moral("Only an answer that is a success is billed.")

    async def the_offer(self) -> None:
        """An agent that has never been here."""
        play = self.play
        play.teller.step(7, "An agent without an account sends a document.")
        answer = await play.nobody(MINUTES, 402)
        offered = offer(answer) or {}
        play.check("the offer's amount", 100_000, asked_micros(offered))
        play.teller.moral("No refusal but an offer: 0.10 USDC, the same list price, to be paid on chain.")

    async def paid(self) -> None:
        """The official client pays."""
        play = self.play
        play.teller.step(8, "Its official x402 client signs a payment, and it asks again.")
        self._payment = await payments.signed(play.stage.gated, MINUTES, play.stage.agent)
        answer = self._paid = await play.agent(MINUTES, self._payment, 200)
        receipt = settlement(answer) or {}
        await self._check_receipt(answer, receipt, "0.100000")
        play.teller.moral(f"Settled in transaction {_brief(receipt)}; the receipt comes with the answer.")

    async def paid_again(self) -> None:
        """The same payment, as if the answer had been lost on the way."""
        play = self.play
        play.teller.step(9, "The answer got lost on the way: the same payment once more.")
        answer = await play.agent(MINUTES, self._payment, 200)
        assert self._paid is not None
        play.check("the repeated payment's answer", self._paid.body, answer.body)
        for name in ("payment-response", "headgate-receipt"):
            play.check(f"the repeated payment's {name}", self._paid.header(name), answer.header(name))
        play.teller.moral("The same answer and the same receipt. Nothing is charged twice.")

    async def paid_elsewhere(self) -> None:
        """The same payment for something else."""
        play = self.play
        play.teller.step(10, "It tries that payment on a summary, too.")
        answer = await play.agent(AGREEMENT_SUMMARY, self._payment, 409)
        found = msgspec.json.decode(answer.body).get("code")
        play.check("the reason a used payment is refused", "payment_bound_elsewhere", found)
        play.teller.moral("A payment is good for the request it was made for.")

    async def another_purchase(self) -> None:
        """A dearer action."""
        play = self.play
        play.teller.step(11, "So it buys the summary for 0.25.")
        payment = await payments.signed(play.stage.gated, AGREEMENT_SUMMARY, play.stage.agent)
        answer = await play.agent(AGREEMENT_SUMMARY, payment, 200)
        await self._check_receipt(answer, settlement(answer) or {}, "0.250000")

    async def work_that_failed(self) -> None:
        """A good payment for a document nobody can read."""
        play = self.play
        play.teller.step(12, "It pays for a document that cannot be read.")
        payment = await payments.signed(play.stage.gated, BINARY, play.stage.agent)
        answer = await play.agent(BINARY, payment, 422)
        play.check("a receipt for work that failed", None, answer.header("payment-response"))
        play.teller.moral("No success, no settlement: the money never moved.")

    async def bad_payments(self) -> None:
        """What a dishonest agent tries."""
        play, line = self.play, self.play.stage.gated
        cheat, penniless = play.stage.cheat, play.stage.penniless
        play.teller.step(13, "Another agent does not play fair.")
        payment = payments.forged(await payments.signed(line, MINUTES, cheat))
        await play.agent(MINUTES, payment, 402, label="a signature with one bit changed")
        payment = await payments.underpaid(line, MINUTES, cheat)
        await play.agent(MINUTES, payment, 402, label="one micro-dollar too little")
        payment = await payments.signed(line, MINUTES, penniless)
        await play.agent(MINUTES, payment, 402, label="a wallet with nothing in it")
        await play.agent(MINUTES, "money, honestly", 400, label="a header that is no payment")
        play.teller.moral("Each is told what is wrong with it, before any work is done.")

    async def revoked(self) -> None:
        """A key that stops working, and does not turn into a payment."""
        play, stage = self.play, self.play.stage
        play.teller.step(14, "Ben's key works; it is revoked; it does not work any more.")
        await play.customer(stage.ben, [AGREEMENT], 200)
        await stage.revoke(stage.ben)
        play.teller.line(f"headgate keys revoke {stage.ben.key_id}", "", "")
        await play.customer(stage.ben, [AGREEMENT], 401)
        payment = await payments.signed(stage.gated, AGREEMENT, stage.agent)
        await play.customer(stage.ben, [AGREEMENT], 401, payment=payment)
        play.teller.moral("Not even with a payment beside it: a bad key never turns into a purchase.")

    async def _check_receipt(self, answer: Answer, receipt: dict[str, object], amount: str) -> None:
        """The receipt in the header, and the page behind `Headgate-Receipt`."""
        play = self.play
        payer = str(receipt.get("payer", "")).lower()
        play.check("the receipt's success", True, receipt.get("success"))
        play.check("the receipt's payer", play.stage.agent.address.lower(), payer)
        origin = play.stage.gated.origin
        address = answer.header("headgate-receipt") or ""
        play.check("the receipt's address", origin, address[: len(origin)])
        page = await play.stage.gated.send(Asked("GET", address[len(origin) :]))
        play.check("the receipt page's status", 200, page.status)
        said = msgspec.json.decode(page.body)
        play.check("the receipt page's state", "settled", said.get("state"))
        play.check("the receipt page's amount", amount, said.get("charged_amount"))
        play.check("the receipt page's transaction", receipt.get("transaction"), said.get("transaction"))


def _read(answers: list[Answer]) -> tuple[int, str]:
    """How many words were read, and in which languages, from the answers themselves."""
    found = [msgspec.json.decode(answer.body) for answer in answers if answer.status == 200]
    spoken = {str(one["language"]) for one in found}
    names = [name for code, name in _LANGUAGES.items() if code in spoken]
    return sum(one["words"] for one in found), " and ".join(
        filter(None, (", ".join(names[:-1]), *names[-1:]))
    )


def _brief(receipt: dict[str, object]) -> str:
    text = str(receipt.get("transaction", ""))
    return f"{text[:10]}…{text[-6:]}"
