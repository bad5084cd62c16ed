#pragma version ~=0.4.3
#pragma evm-version cancun
"""
@title  Multicall3, the part that x402 and common clients use
@notice Several calls in one, each allowed to fail where the caller says so.
@dev    Vyper bounds every array: at most 16 calls of 4 KiB, answers cut at 4 KiB.
"""

struct Call:
    target: address
    callData: Bytes[4096]

struct Call3:
    target: address
    allowFailure: bool
    callData: Bytes[4096]

struct Result:
    success: bool
    returnData: Bytes[4096]


@payable
@external
def tryAggregate(requireSuccess: bool, calls: DynArray[Call, 16]) -> DynArray[Result, 16]:
    results: DynArray[Result, 16] = []
    for call: Call in calls:
        results.append(self._call(call.target, call.callData, not requireSuccess))
    return results


@payable
@external
def aggregate3(calls: DynArray[Call3, 16]) -> DynArray[Result, 16]:
    results: DynArray[Result, 16] = []
    for call: Call3 in calls:
        results.append(self._call(call.target, call.callData, call.allowFailure))
    return results


@internal
def _call(target: address, data: Bytes[4096], may_fail: bool) -> Result:
    success: bool = False
    answer: Bytes[4096] = b""
    success, answer = raw_call(target, data, max_outsize=4096, revert_on_failure=False)
    assert success or may_fail, "Multicall3: call failed"
    return Result(success=success, returnData=answer)


@view
@external
def getBlockNumber() -> uint256:
    return block.number


@view
@external
def getCurrentBlockTimestamp() -> uint256:
    return block.timestamp


@view
@external
def getChainId() -> uint256:
    return chain.id


@view
@external
def getEthBalance(addr: address) -> uint256:
    return addr.balance
