"""What runs in the containers of the tests: programs that call models and tools, well or badly.

They use stock clients - the MCP SDK, plain HTTP - and know of Fairlead what its documentation says: two variables.
"""

from __future__ import annotations

CLIENT = '''
import asyncio, json, os, socket, ssl, time, urllib.error, urllib.request
from mcp.client import Client

given = json.load(open("/work/input.json")) or {}

def leave(value):
    json.dump(value, open("/work/output.json", "w"))

def post(url, body, **headers):
    """Return the status and body of an answer."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, context=ssl._create_unverified_context()) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()

def chat(messages, **more):
    said = {"model": "scripted", "messages": messages, **more}
    return post(os.environ["OPENAI_BASE_URL"] + "/chat/completions", said)

def tools(tool):
    return Client(os.environ["FAIRLEAD_MCP_URL"] + "/" + tool)

def raw(tool, method, **params):
    said = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    return post(os.environ["FAIRLEAD_MCP_URL"] + "/" + tool, said)
'''

AGENT = """
async def main():
    messages = [{"role": "user", "content": given["task"]}]
    async with tools("ledger") as ledger:
        listed = (await ledger.list_tools()).tools
        shown = [{"name": one.name, "parameters": one.input_schema} for one in listed]
        offered = [{"type": "function", "function": one} for one in shown]
        while True:
            status, answer = chat(messages, tools=offered)
            message = answer["choices"][0]["message"]
            messages.append(message)
            if not message.get("tool_calls"):
                break
            for call in message["tool_calls"]:
                function = call["function"]
                result = await ledger.call_tool(function["name"], json.loads(function["arguments"]))
                messages.append({"role": "tool", "tool_call_id": call["id"], "content": result.content[0].text})
    leave({"answer": message["content"], "offered": [one.name for one in listed], "turns": len(messages)})

asyncio.run(main())
"""

INTRUDER = """
me = {"role": "user", "content": "hi"}
def reaches(host, port):
    try:
        socket.create_connection((host, port), timeout=2).close()
        return True
    except OSError:
        return False

engine = f"fairlead-engine.{given['namespace']}.svc"
direct = f"https://{engine}:8445/v1/chat/completions"
hello = {"model": "scripted", "messages": [me]}
picture = {"type": "image_url", "image_url": {"url": "http://evil.example/x.png"}}
file = {"type": "file", "file": {"file_id": "f-1"}}
found = {
    "provider": {
        name: chat(hello["messages"] if messages is None else messages, **more)[0]
        for name, messages, more in (
            ("web search", None, {"tools": [{"type": "web_search"}]}),
            ("remote mcp", None, {"tools": [{"type": "mcp", "server_url": "http://evil.example/mcp"}]}),
            ("web search options", None, {"web_search_options": {}}),
            ("an earlier answer", None, {"previous_response_id": "r-1"}),
            ("store", None, {"store": True}),
            ("a picture", [{"role": "user", "content": [picture]}], {}),
            ("a file", [{"role": "user", "content": [file]}], {}),
        )
    },
    "other model": post(os.environ["OPENAI_BASE_URL"] + "/chat/completions", hello | {"model": "hidden"}),
    "responses": post(os.environ["OPENAI_BASE_URL"] + "/responses", hello)[0],
    "hidden": raw("ledger", "tools/call", name="slow", arguments={"key": "hidden", "seconds": 0})[1],
    "not granted": raw("ledger", "tools/call", name="append", arguments={"key": "refused"})[1],
    "no such": raw("ledger", "tools/call", name="nothing", arguments={})[1],
    "other tool": raw("secrets", "tools/call", name="append", arguments={"key": "other"})[1],
    "mismatch": post(
        os.environ["FAIRLEAD_MCP_URL"] + "/ledger",
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "append", "arguments": {"key": "m"}}},
        **{"Mcp-Name": "read"},
    )[0],
    "no token": post(direct, hello),
    "nothing": post(direct, hello, Authorization="Bearer nothing"),
    "stolen": post(direct, hello, Authorization="Bearer " + given["stolen"]),
    "old": post(direct, hello, Authorization="Bearer " + given["old"]),
    "other use": post(direct, hello, Authorization="Bearer " + given["api"]),
    "open": [way for way in given["ways"] if reaches(*way)],
    "files": [one for one in ("/var/run/fairlead", "/var/run/secrets") if os.path.exists(one)],
}
leave(found)
"""

SLOW_WRITER = """
async def main():
    done = []
    async with tools("ledger") as ledger:
        for number in range(int(given["calls"])):
            for function in ("append", "append_keyed"):
                result = await ledger.call_tool(function, {"key": f"{given['name']}-{function}-{number}"})
                done.append(result.is_error)
            time.sleep(0.2)
    leave({"calls": len(done), "failed": sum(done)})

asyncio.run(main())
"""
