"""The existing overage path: what leaves the ledger for the seller's biller, and how (contract §11).

use.py          what is delivered: one ledger row, as the receiver sees it
sink.py         what a receiver's adapter must do, and how it says that it failed
callback.py     a sink: a function of the seller's
cloudevents.py  a sink: a signed webhook
signature.py    Standard Webhooks: signing, and checking for receivers
batch.py        which rows come next, and how far the cursors may move
backoff.py      when to try again
"""
