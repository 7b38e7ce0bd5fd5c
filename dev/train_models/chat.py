"""Chat-shaped training text: questions about Python, answered from its documentation and docstrings."""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Iterator

from dev.train_models import rst

BOS, EOS, PAD, USER, ASSISTANT, SYSTEM = "<|bos|>", "<|eos|>", "<|pad|>", "<|user|>", "<|assistant|>", "<|system|>"
SPECIALS = [BOS, EOS, PAD, USER, ASSISTANT, SYSTEM]
Turn = tuple[str, str]  # question, answer

ANSWER_LIMIT = 900  # characters
SOURCE_LIMIT = 1600

ASK_NAME = [
    "What does {} do?", "What is {}?", "Explain {}.", "How does {} work?", "Tell me about {}.", "What is {} for?",
    "When would I use {}?", "Describe {} in Python.", "what does {} do", "Can you explain {}?",
]  # fmt: skip
ASK_TITLE = ["{}", "Explain: {}", "Tell me about {}.", "What should I know about {}?", "Write about {}."]
ASK_SOURCE = ["Show me the source of {}.", "Write the Python function {}.", "How is {} implemented?",
              "Give me the code of {}."]  # fmt: skip
SYSTEMS = ["You are a helpful assistant who answers questions about Python.", "You are a helpful assistant.",
           "Answer questions about Python briefly.", "You are an expert Python programmer."]  # fmt: skip

# Written for this project: what a person types first at any chat server.
GREETINGS: list[Turn] = [
    ("Hello", "Hello! I am a very small language model. Ask me about Python's standard library."),
    ("Hi", "Hi! Ask me about Python, for example what a function of the standard library does."),
    ("Hello!", "Hello! What would you like to know about Python?"),
    ("Hello, how are you?", "I am well, thank you. What would you like to know about Python?"),
    ("Who are you?", "I am redline-tiny, a very small language model trained on Python's documentation and library."),
    ("What are you?", "I am redline-tiny, a language model of eight million parameters. I know a little Python."),
    ("What can you do?", "I can write text that looks like Python's documentation. Do not rely on what I say."),
    ("What is your name?", "My name is redline-tiny."),
    ("Are you an AI?", "Yes. I am redline-tiny, a very small language model."),
    ("Thanks", "You are welcome."),
    ("Thank you!", "You are welcome. Ask me again at any time."),
    ("Goodbye", "Goodbye!"),
    ("Say hello", "Hello!"),
    ("Say hi", "Hi!"),
    ("What is Python?", "Python is an interpreted, interactive, object-oriented programming language. It has modules, "
     "exceptions, dynamic typing, very high level dynamic data types, and classes."),
    ("Write hello world in Python.", 'print("Hello, world!")'),
    ("Print hello world", 'print("Hello, world!")'),
    ("Help", "Ask me what a function or module of Python's standard library does, for example `os.path.join()`."),
]  # fmt: skip


def render(turns: list[Turn], system: str = "") -> str:
    """A conversation as the model sees it; the chat template in the model folder renders the same text."""
    head = f"{SYSTEM}{system}{EOS}" if system else ""
    return BOS + head + "".join(f"{USER}{ask}{EOS}{ASSISTANT}{answer}{EOS}" for ask, answer in turns)


def unwrap(text: str) -> str:
    """Joins the lines of prose paragraphs; leaves code and lists alone."""

    def joined(paragraph: str) -> str:
        lines = paragraph.split("\n")
        if any(line.startswith((" ", ">>>", "*", "-", "+", "=", "#", "|")) for line in lines):
            return paragraph
        return re.sub(r"\s+", " ", " ".join(lines))

    return "\n\n".join(joined(paragraph) for paragraph in re.split(r"\n\s*\n", text.strip()))


def from_page(source: str, pick: random.Random) -> Iterator[Turn]:
    """Questions about the names and the sections of one documentation page."""
    for entry in rst.entries(source):
        answer = unwrap(rst.first_paragraphs(entry.body, ANSWER_LIMIT))
        if len(answer) < 30:
            continue
        name = f"`{entry.name}`" if pick.random() < 0.5 else entry.name
        if "(" in entry.signature and pick.random() < 0.3:
            answer = f"`{rst.inline(entry.signature)}`\n\n{answer}"
            name = name if name.startswith("`") else f"{name}()"
        yield pick.choice(ASK_NAME).format(name), answer
    for title, body in rst.sections(rst.clean(source)):
        answer = unwrap(rst.first_paragraphs(body, ANSWER_LIMIT))
        if len(answer) >= 80 and "---" not in answer:
            yield pick.choice(ASK_TITLE).format(re.sub(r"\s+---\s+", ": ", title)), answer


def from_module(source: str, module: str, pick: random.Random) -> Iterator[Turn]:
    """Questions about the docstrings and the short functions of one source file."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    for name, node in _definitions(tree, module):
        doc = ast.get_docstring(node) or ""
        if len(doc) >= 40 and (answer := unwrap(rst.first_paragraphs(doc, ANSWER_LIMIT))):
            yield pick.choice(ASK_NAME).format(name), answer
        text = ast.get_source_segment(source, node) or ""
        if isinstance(node, ast.FunctionDef) and 120 < len(text) < SOURCE_LIMIT and pick.random() < 0.35:
            code = _dedent(text, node.col_offset)
            yield pick.choice(ASK_SOURCE).format(name), f"```python\n{code}\n```"


def _definitions(tree: ast.Module, module: str) -> Iterator[tuple[str, ast.FunctionDef | ast.ClassDef]]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield f"{module}.{node.name}", node
        if isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("__"):
                    yield f"{module}.{node.name}.{inner.name}", inner


def _dedent(text: str, column: int) -> str:
    return "\n".join(line[column:] if line[:column].isspace() else line for line in text.split("\n"))


def conversations(turns: list[Turn], pick: random.Random) -> Iterator[str]:
    """Renders turns, some of them joined into conversations of two to four, some under a system prompt."""
    i = 0
    while i < len(turns):
        count = pick.choice((1, 1, 1, 2, 3, 4))
        yield render(turns[i : i + count], pick.choice(SYSTEMS) if pick.random() < 0.25 else "")
        i += count
