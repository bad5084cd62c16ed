"""The demo: a document API that knows nothing of Headgate, its sample documents, and the story told with
both.

The modules of the API itself (`documents_api`, `analysis`, `segments`, `lexicon`, `reading`, `markup`,
`docx`) import nothing of Headgate but each other: they play the stranger's application.
"""
