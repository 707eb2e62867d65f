"""Sentences that the benchmark speaks when no file is given: everyday English, 20 to 180 characters."""

from __future__ import annotations

SENTENCES = (
    "The kettle is on, so sit down for a minute.",
    "Our train leaves at half past nine from the second platform.",
    "She folded the letter twice and put it under the lamp.",
    "Rain is expected in the north, with a cold wind from the sea.",
    "Please leave your keys at the desk before you go home.",
    "The old bridge was closed for repairs during most of the summer.",
    "He counted the boxes again and found that one was missing.",
    "A small boat drifted slowly past the end of the garden.",
    "Turn left at the bakery, and you will see the school on your right.",
    "The meeting was short, but everyone had something useful to say.",
    "Fresh bread and strong coffee make a good start to any morning.",
    "My brother plants tomatoes behind the house every spring.",
    "The report says that prices rose a little faster than in the year before.",
    "Can you hear the birds, or is the window closed?",
    "They painted the fence green because the shop had no blue left.",
    "It takes about ten minutes to walk from the station to the market.",
    "The doctor told him to rest for a week and to drink plenty of water.",
    "We watched the lights of the city from the top of the hill.",
    "Nobody remembered who had brought the cake, but it was gone by noon.",
    "The library opens early on Monday and stays open until eight in the evening.",
    "Put the large books on the bottom shelf and the small ones above them.",
    "After the storm, the street was covered with leaves and broken branches.",
    "Her first answer was wrong, so she thought for a moment and tried again.",
    "The new road will shorten the journey for most of the people who live in the valley.",
    "Thank you for waiting; someone will be with you in a moment.",
    "The engineer checked every cable twice, wrote the numbers on a card, and closed the door behind him.",
    "If the weather stays dry until Friday, we can finish the roof and start on the kitchen next week.",
    "The museum shows tools, maps and letters from the time when the harbour was the heart of the town.",
    "Good morning.",
    "Yes, that is exactly what I meant.",
    "The children ran down to the river, took off their shoes, and waited for their uncle to bring the net.",
    "Although the shop was about to close, the owner smiled, turned the lights on again, and asked what they were "
    "looking for.",
)
